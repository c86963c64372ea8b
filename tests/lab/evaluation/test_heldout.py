"""Held-out loss is a mean over tokens; answers are shares."""

import pytest

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Collator, Example
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.evaluation.heldout import HeldOut, Measured

EXAMPLES = [Example(index=n, input_ids=list(range(3, 5 + n)), labels=[IGNORE, *range(4, 5 + n)]) for n in range(1, 6)]


def test_the_loss_is_a_mean_over_tokens():
    measured = Measured(losses=[1.0, 9.0], tokens=[1, 4], answers={"accuracy": [True, False]})
    assert measured.loss == 2.0
    assert measured.fraction("accuracy") == 0.5
    assert measured.fraction("exact_match") is None


def test_all_is_measured_on_the_same_model():
    model = build_model(build_tokenizer(["words"], vocab=300), seed=0, width=16, layers=1)
    seen = []

    def right(given):
        seen.append(given)
        return [True] * 5

    heldout = HeldOut(EXAMPLES, collator=Collator(2), answers={"accuracy": right})
    measured = heldout.measure(model)
    assert seen == [model]
    assert measured.tokens == [2, 3, 4, 5, 6]
    assert measured.answers == {"accuracy": [True] * 5}
    assert measured.loss == pytest.approx(heldout(model))
    assert 4 < measured.loss < 8  # near the logarithm of 300, since the weights are random
