"""Held-out loss is a mean over tokens, whatever the batches."""

import pytest
import torch

from uds_adapters.batches import IGNORE
from uds_adapters.lab.encode import Collator, Example
from uds_adapters.lab.evaluate import HeldOut
from uds_adapters.lab.tiny import build_model, build_tokenizer

EXAMPLES = [Example(index=n, input_ids=list(range(3, 5 + n)), labels=[IGNORE, *range(4, 5 + n)]) for n in range(1, 6)]


@pytest.fixture(scope="module")
def model():
    return build_model(build_tokenizer(["words"], vocab=300), seed=0, width=16, layers=1)


def test_equals_the_loss_one_by_one(model):
    total, count = 0.0, 0
    for example in EXAMPLES:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=labels).loss) * (len(ids[0]) - 1)
        count += len(ids[0]) - 1
    for size in (1, 2, 16):
        assert HeldOut(EXAMPLES, collator=Collator(2), batch_size=size)(model) == pytest.approx(total / count, rel=1e-5)


def test_modes_are_restored(model):
    model.train()
    HeldOut(EXAMPLES, collator=Collator(2))(model)
    assert all(module.training for module in model.modules())
