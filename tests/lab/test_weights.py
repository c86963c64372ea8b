"""Weights that do not match a model are refused by name; tied ones and whole foreign modules are not."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from uds_adapters.lab import models as lab
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.errors import LabError, LabWarning


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["some words"], vocab=300)


@pytest.fixture
def folder(tmp_path, tokenizer):
    with lab.quiet():
        build_model(tokenizer, seed=0, width=16, layers=2).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
    return tmp_path


def load(folder):
    with lab.quiet():
        return lab.load_model(folder)


def load_both(folder):
    with lab.quiet():
        lab.load_tokenizer(folder)
    load(folder)


def change(folder, **more):
    """Add weights, or with None take one away."""
    file = folder / "model.safetensors"
    weights = {**load_file(file), **{name.replace("__", "."): weight for name, weight in more.items()}}
    save_file({n: w for n, w in weights.items() if w is not None}, file, metadata={"format": "pt"})


def test_a_tied_head_is_not_missing(folder):
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load(folder)
    assert torch.equal(model.lm_head.weight, load_file(folder / "model.safetensors")["model.embed_tokens.weight"])


@pytest.mark.parametrize(
    "name", ["model__layers__2__mlp__up_proj__weight", "model__layers__0__self_attn__q_proj__bias", "lm_head__bias"]
)
def test_more_weights_of_modules_that_the_model_has(folder, name):
    change(folder, **{name: torch.ones(1)})
    with pytest.raises(LabError, match=rf"\(not in the model: {name.replace('__', '.')}\)"):
        load(folder)


def test_modules_that_the_model_does_not_have_are_left_out_and_named(folder):
    expected = load(folder).state_dict()
    change(folder, v_head__summary__weight=torch.ones(1), model__vision_tower__layers__0__weight=torch.ones(1))
    with pytest.warns(LabWarning, match=r"are left out: model\.vision_tower\.layers\.0\.weight, v_head\.summary"):
        found = load(folder).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_another_shape(folder):
    change(folder, model__norm__weight=torch.ones(3))
    with pytest.raises(LabError, match=r"of another shape: model\.norm\.weight \(3,\), not \(16,\)"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"", "model.safetensors is empty"),
        ("model.safetensors", b"not weights at all", "is no safetensors file, or was cut off"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "has a damaged header"),
        ("config.json", b"", "config.json is empty"),
        ("config.json", b"{", "that transformers can load: "),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1", "tokenizer.json is a Git LFS pointer"),
        ("tokenizer.json", b"{", "holds no tokenizer that transformers can load: "),
    ],
)
def test_damaged_files(folder, name, content, said):
    (folder / name).write_bytes(content)
    with pytest.raises(LabError, match=said):
        load_both(folder)


def test_weights_that_are_pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not weights")
    with pytest.raises(LabError, match="can load: "):
        load(folder)


def test_adapters_that_lack_a_layer(folder, tmp_path):
    adapters = tmp_path / "adapters"
    with lab.quiet():
        lab.with_lora(load(folder), rank=2, seed=0).save_pretrained(adapters)
        lab.with_adapter(load(folder), adapters)
    file = adapters / "adapter_model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "layers.1." not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(LabError, match=r"do not fit the model: .*layers\.1"), lab.quiet():
        lab.with_adapter(load(folder), adapters)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LabError, match="was cut off"), lab.quiet():
        lab.with_adapter(load(folder), adapters)
