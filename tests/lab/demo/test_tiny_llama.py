"""The demo's model is small, seeded, and learns in pretraining."""

import pytest
import torch

from uds_adapters.lab.demo import instructions
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer, pretrain

TEXTS = instructions.plain_text(50, seed=0)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(TEXTS, vocab=320)


def test_the_tokenizer_gives_texts_back_and_splits_digits(tokenizer):
    assert len(tokenizer) <= 320
    for text in (TEXTS[0], "unseen: \u00e4 \U0001f600\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("1234")["input_ids"]) == 4


def test_the_model_is_seeded_and_leaves_the_global_generator_alone(tokenizer):
    state = torch.random.get_rng_state()
    first, again, other = (build_model(tokenizer, seed=seed, width=16, layers=1) for seed in (0, 0, 1))
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    assert torch.equal(state, torch.random.get_rng_state())


def test_pretraining_learns(tokenizer):
    model = build_model(tokenizer, seed=0, width=32, layers=1)
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])

    def loss():
        with torch.no_grad():
            return float(model(input_ids=ids, labels=ids).loss)

    before, steps = loss(), []
    pretrain(model, tokenizer=tokenizer, texts=TEXTS, steps=60, seed=0, time=32, after_step=steps.append)
    assert loss() < 0.8 * before
    assert steps == list(range(1, 61))
