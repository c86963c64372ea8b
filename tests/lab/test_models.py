"""Folders that hold no model are refused in words; LoRA leaves the global generator alone."""

import pytest
import torch
from transformers.utils import logging

from uds_adapters.lab import models as lab
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.errors import LabError


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["some words"], vocab=300)


def test_a_folder_that_is_missing_empty_or_broken(tmp_path):
    with pytest.raises(LabError, match=r"no folder .*--local-dir"):
        lab.load_tokenizer(tmp_path / "none")
    with pytest.raises(LabError, match=r"no config\.json"):
        lab.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    for load in (lab.load_model, lab.load_tokenizer):
        with pytest.raises(LabError, match="that transformers can load: "):
            load(tmp_path)


def test_saved_and_loaded_in_float32(tmp_path, tokenizer):
    with lab.quiet():
        build_model(tokenizer, seed=0, width=16, layers=1).bfloat16().save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        assert {p.dtype for p in lab.load_model(tmp_path).parameters()} == {torch.float32}
        assert lab.load_tokenizer(tmp_path)("some words")["input_ids"] == tokenizer("some words")["input_ids"]


def test_adapters_depend_on_their_seed_alone(tokenizer):
    def first_values(seed):
        model = lab.with_lora(build_model(tokenizer, seed=0, width=16, layers=1), rank=2, seed=seed)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert trained
        assert all("lora_" in name for name in trained)
        return torch.cat([p.detach().flatten() for p in trained.values()])

    state = torch.random.get_rng_state()
    assert torch.equal(first_values(0), first_values(0))
    assert not torch.equal(first_values(0), first_values(1))
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(LabError, match="`lora_rank`"):
        lab.with_lora(build_model(tokenizer, seed=0, width=16, layers=1), rank=0, seed=0)


def test_quiet_is_undone():
    verbosity = logging.get_verbosity()
    with lab.quiet():
        assert logging.get_verbosity() == 40  # ERROR
    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled()
