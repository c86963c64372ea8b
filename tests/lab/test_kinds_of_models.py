"""Every command takes each kind of model, and what it saves is plain."""

import json
import shutil

import pytest
import transformers
import yaml
from typer.testing import CliRunner

from uds_adapters.lab import models as lab
from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario

TRAINED = ["--steps", "2", "--batch-size", "4", "--threads", "1"]
COMMANDS = {
    "compare": [*TRAINED, "--policy", "random"],
    "train": [*TRAINED, "--policy", "random"],
    "tune": [*TRAINED, "--steps", "36", "--trials", "2", "--rungs", "2", "--seeds", "1", "--search", "alpha=0..1"],
    "score": [],
    "show": [],
    "profile": ["--candidates", "4", "--repeats", "1"],
}

KINDS = ("gguf", "lora", "hub")
FAST = [("train", "gguf"), ("score", "lora"), ("score", "hub")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("kinds"), sizes=sizes, seed=0)


@pytest.fixture(scope="module")
def kinds(source, tmp_path_factory):
    """Kind -> what `--model` is given, all of the same weights."""
    folder = tmp_path_factory.mktemp("models")
    gguf_files = pytest.importorskip("gguf_files", reason="needs the package gguf")
    with lab.quiet():
        model, tokenizer = lab.load_model(source.model), lab.load_tokenizer(source.model)
        file = gguf_files.write(folder / "tiny.gguf", model, tokenizer, template="{{ messages[0].content }}")
        lab.with_lora(model, rank=2, seed=0).save_pretrained(folder / "adapters")
    snapshot = folder / "hub" / "models--some--model" / "snapshots" / ("0" * 40)
    shutil.copytree(source.model, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    return {"gguf": file, "lora": folder / "adapters", "hub": "some/model"}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch, kinds):
    from huggingface_hub import constants

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(kinds["lora"].parent / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def run(command, *options):
    result = CliRunner().invoke(app, [command, *COMMANDS[command], *map(str, options)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(command, kind, marks=[] if (command, kind) in FAST else pytest.mark.slow)
        for command in COMMANDS
        for kind in KINDS
    ],
)
def test_commands(command, kind, kinds, source, tmp_path):
    output = {"score": ["--output", tmp_path / "out.parquet"], "profile": [], "show": []}.get(
        command, ["--output", tmp_path / "out"]
    )
    options = ["--model", kinds[kind], "--data", source.data, "--json", *output]
    result = run(command, *options)
    found = json.loads(result.stdout)
    assert ("is unpacked into" in result.stderr) == (kind == "gguf")
    if command == "compare" and kind == "hub":
        assert found["configuration"]["model"] == "some/model"
    if command == "train":
        written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text(encoding="utf-8"))
        assert written["model"] == str(kinds[kind])
        saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
        assert not hasattr(saved, "peft_config")
        lab.load_model(tmp_path / "out" / "model")
        again = run(command, "--resume", tmp_path / "out", "--json")
        assert json.loads(again.stdout)["steps"] == found["steps"]


@pytest.mark.slow  # trains, and scores
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_them_load_by_themselves(kind, kinds, source, tmp_path):
    data = ["--data", source.data]
    run("train", "--lora", "--learning-rate", "0.1", "--model", kinds[kind], *data, "--output", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapters" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == (2 if kind == "lora" else 8)
    if kind == "hub":
        assert config["base_model_name_or_path"] == "some/model"
    else:
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "adapters")
    model = lab.load_model(tmp_path / "out" / "adapters")
    base = lab.load_model(source.model).state_dict()
    assert any(not weight.equal(base[name]) for name, weight in model.state_dict().items())
    run("score", "--model", tmp_path / "out" / "adapters", *data, "--output", tmp_path / "out.parquet")
