"""Tiny models and batches for the adapters' tests, made on the spot."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

VOCAB = 97


def llama(*, seed=0, tied=False, dropout=0.0, frozen_head=False) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    if frozen_head:
        model.lm_head.weight.requires_grad = False
    return model


def example(rng, *, shortest=4, longest=14):
    length, prompt = int(rng.integers(shortest, longest)), int(rng.integers(1, 3))
    ids = rng.integers(1, VOCAB, size=length).tolist()
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


def collate(examples, *, left=False, more=0):
    """Padded to the longest, and `more`; on the right, or on the left."""
    time = max(len(one["input_ids"]) for one in examples) + more

    def padded(values, filler):
        filling = [filler] * (time - len(values))
        return filling + values if left else values + filling

    return {
        "input_ids": torch.tensor([padded(one["input_ids"], 0) for one in examples]),
        "labels": torch.tensor([padded(one["labels"], -100) for one in examples]),
        "attention_mask": torch.tensor([padded([1] * len(one["input_ids"]), 0) for one in examples]),
    }


def examples(number, *, seed=0):
    import numpy as np

    rng = np.random.default_rng(seed)
    return [example(rng) for _ in range(number)]


def batch(number=6, *, seed=0, **options):
    return collate(examples(number, seed=seed), **options)
