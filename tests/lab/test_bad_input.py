"""What users get wrong, in every command: one paragraph that names it, exit code 2, nothing half-written."""

import errno
import json
import os
import shutil

import pytest
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.models import quiet

TRAINED = ["--steps", "2", "--batch-size", "4"]
COMMANDS = {  # that read a model and data, with what makes them quick
    "compare": [*TRAINED, "--policy", "random"],
    "train": [*TRAINED, "--policy", "random"],
    "tune": [*TRAINED, "--trials", "2", "--rungs", "2", "--seeds", "1", "--search", "alpha=0..1"],
    "score": [],
    "profile": ["--candidates", "4", "--repeats", "1"],
}
WITHOUT_OUTPUT = {"profile"}
GOOD = '{"prompt": "Spell apple.", "completion": "a-p-p-l-e"}\n'

DATA = {  # what the file holds -> what is said
    "broken JSON": (GOOD.encode() + b'{"prompt": "half', "data.jsonl:2: this line is not JSON"),
    "no object": (b"[1, 2]\n", "data.jsonl:1: expected a JSON object, got list"),
    "wrong fields": (b'{"question": "q", "answer": "a"}\n', "data.jsonl:1: expected the fields 'prompt' and"),
    "not text": (b'{"prompt": "q", "completion": [3]}\n', "'completion' must be a string, got list"),
    "empty": (b"", "holds no records"),
    "blank": (b"\n\n", "holds no records"),
    "not UTF-8": (GOOD.encode() + b'{"prompt": "\xff", "completion": "c"}\n', "not UTF-8"),
    "a number of 5,000 digits": (
        GOOD.encode() + b'{"id": %b}' % (b"1" * 5000),
        "data.jsonl:2: this line holds a number",
    ),
    "100,000 nested lists": (b'{"text": %b' % (b"[" * 100_000), "data.jsonl:1: lists or objects are nested too deeply"),
    "UTF-16": (GOOD.encode("utf-16"), "which `iconv -f utf-16 -t utf-8` converts"),
    "a line of a no-break space": (GOOD.encode() * 9 + "\u00a0\n".encode(), "data.jsonl:10: this line is not JSON"),
    "no completion": (b'{"prompt": "p", "completion": " "}\n' * 20, "left out, with an empty completion"),
    "tool calls that are no JSON": (
        b'{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "town"}]}]}\n' * 20,
        "data.jsonl:1: message 1 of 'messages': the arguments of the tool call 'f' must be an object",
    ),
    "samples beyond the context": (
        json.dumps({"prompt": "p", "completion": "word " * 400}).encode() * 1 + b"\n" + GOOD.encode() * 20,
        "and the model has positions for 256: cut samples with `--max-length 256`",
    ),
    "prompts that fill it": (
        (json.dumps({"prompt": "word " * 100, "completion": "c"}) + "\n").encode() * 20,
        "max_length",
    ),
}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0)


@pytest.fixture(params=COMMANDS)
def command(request):
    return request.param


def words(text):
    return " ".join(text.replace("\u2502", " ").split())


def refused(command, folder, **changed):
    """What is said on one screen; and nothing is left behind."""
    output = folder / ("out.parquet" if command == "score" else "out")
    given = {"output": output, **changed}
    if command in WITHOUT_OUTPUT:
        del given["output"]
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *options])
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) <= 24, result.stderr
    assert result.stdout.count("Error") == 0
    assert not output.exists()
    assert not list(folder.rglob("*.tmp"))
    return words(result.stderr)


@pytest.mark.parametrize("case", DATA)
def test_data(command, source, tmp_path, case):
    content, said = DATA[case]
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    length = {"max_length": 100} if case == "prompts that fill it" else {}
    assert said in refused(command, tmp_path, model=source.model, data=data, **length)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": "none.jsonl"}, "no file none.jsonl"),
        ({"model": "none"}, "no folder none"),
        ({"model": "."}, "holds no config.json"),
        ({"prompt_field": "question"}, "Name its fields with"),
        ({"policy": "best"}, "unknown policy 'best'; known: "),
        ({"policy": "uds:colour=red"}, "has no option 'colour'"),
        ({"policy": "uds:alpha"}, "expected options as `option=value`"),
        ({"template": "{prompt}"}, "`template` must hold"),
        ({"template": "{prompt} {input} {completion}"}, "`template` names {input}, and the record has no such field"),
        ({"colour": "red"}, "No such option"),
        ({"format": "best"}, "`format` must be one of auto, prompt-completion, alpaca"),
        ({"format": "alpaca"}, "train.jsonl:1: expected the fields of `--format alpaca`, 'instruction' and"),
        ({"columns": "colour=red"}, "`columns` must be name=field, with one of the names prompt, completion"),
        ({"limit": 0}, "`limit` must be at least 1"),
    ],
    ids=str,
)
def test_options(command, source, tmp_path, monkeypatch, changed, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(command, tmp_path, **{"model": source.model, "data": source.data, **changed})


def prefixed(model):
    file = model / "model.safetensors"
    save_file({f"_orig_mod.{name}": w for name, w in load_file(file).items()}, file, metadata={"format": "pt"})


def without_a_layer(model):
    file = model / "model.safetensors"
    kept = {name: w for name, w in load_file(file).items() if "layers.1." not in name}
    save_file(kept, file, metadata={"format": "pt"})


def pointer(model):
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def cut_off(model):
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-1])


def quantised(model):
    configure(model, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})


def fewer_rows(model):
    with quiet():
        smaller = transformers.AutoModelForCausalLM.from_pretrained(model)
        smaller.resize_token_embeddings(500)
        smaller.save_pretrained(model)


def configure(model, **values):
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (prefixed, "missing: lm_head.weight, model.embed_tokens.weight, model.layers.0.input_layernorm.weight and"),
        (prefixed, "Names in the files begin with '_orig_mod.', which must be taken off"),
        (without_a_layer, "(missing: model.layers.1.input_layernorm.weight, model.layers.1.mlp.down_proj.weight, "),
        (pointer, "model.safetensors is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
        (cut_off, "it was cut off; fetch it again"),
        (quantised, "requires optimum"),
        (fewer_rows, "and the model's embedding has 500 rows: resize it with `model.resize_token"),
    ],
)
def test_models(command, source, tmp_path, spoil, said):
    model = tmp_path / "model"
    shutil.copytree(source.model, model)
    spoil(model)
    assert said in refused(command, tmp_path, model=model, data=source.data)


@pytest.mark.parametrize("command", ["compare", "score"])
def test_a_padding_token_beyond_the_embedding_is_replaced_and_named(source, tmp_path, command):
    model = tmp_path / "model"
    shutil.copytree(source.model, model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    size = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    configure(model, pad_token_id=size)
    output = tmp_path / ("out.parquet" if command == "score" else "out")
    options = ["--model", model, "--data", source.data, "--output", output]
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *map(str, options)])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"'[PAD]' of {model} has id {size}, and the model's embedding has {size} rows" in words(result.stderr)
    assert words(result.stderr).count("Warning:") == 1


@pytest.mark.parametrize("command", ["compare", "train", "tune"])
def test_one_sample_cannot_be_split(source, tmp_path, command):
    data = tmp_path / "data.jsonl"
    data.write_text(GOOD, encoding="utf-8")
    assert "one record cannot be split" in refused(command, tmp_path, model=source.model, data=data)


@pytest.mark.parametrize("command", ["compare", "train", "score"])
def test_an_output_that_holds_something_else_is_left_alone(source, tmp_path, command):
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "thesis.txt").write_text("precious", encoding="utf-8")
    options = ["--model", source.model, "--data", source.data, "--output", output]
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *map(str, options)])
    assert result.exit_code == 2, result.output
    assert [file.name for file in output.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("command", ["compare", "train", "score"])
def test_a_full_disk(source, tmp_path, monkeypatch, command):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    output = tmp_path / ("out.parquet" if command == "score" else "out")
    options = ["--model", source.model, "--data", source.data, "--output", output]
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *map(str, options)])
    assert result.exit_code == 2, (result.output, result.exception)
    assert "no space left on the disk" in words(result.stderr)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("results.json"))


@pytest.mark.parametrize("command", ["compare", "score"])
def test_a_tokenizer_without_a_pad_token_is_fine(source, tmp_path, command):
    model = tmp_path / "model"
    shutil.copytree(source.model, model)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = model / name
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            kept.pop("pad_token", None)
            file.write_text(json.dumps(kept), encoding="utf-8")
    output = tmp_path / ("out.parquet" if command == "score" else "out")
    options = ["--model", model, "--data", source.data, "--output", output]
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *map(str, options)])
    assert result.exit_code == 0, result.output


def test_reports_of_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        result = CliRunner().invoke(app, ["report", str(folder), "--output", str(tmp_path / "page.html")])
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
    assert not (tmp_path / "page.html").exists()


def test_unknown_commands_and_none():
    assert "No such command 'guess'" in words(CliRunner().invoke(app, ["guess"]).output)
    assert CliRunner().invoke(app, ["guess"]).exit_code == 2
