"""Summed losses of completions, one by one, whatever the batches."""

import pytest
import torch

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Collator, Example
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.evaluation.heldout import Likelihood

LENGTHS = (5, 2, 4, 3, 1)
EXAMPLES = [Example(index=n, input_ids=list(range(3, 4 + n)), labels=[IGNORE, *range(4, 4 + n)]) for n in LENGTHS]


@pytest.fixture(scope="module")
def model():
    return build_model(build_tokenizer(["words"], vocab=300), seed=0, width=16, layers=1)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_equals_the_loss_one_by_one_in_the_order_given(model, size):
    expected = []
    for example in EXAMPLES:
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        with torch.no_grad():
            expected.append(float(model(input_ids=ids, labels=labels).loss) * (len(ids[0]) - 1))
    likelihood = Likelihood(EXAMPLES, collator=Collator(2), batch_size=size)
    assert likelihood(model) == pytest.approx(expected, rel=1e-5)
    assert likelihood.tokens == list(LENGTHS)


def test_modes_are_restored(model):
    model.train()
    Likelihood(EXAMPLES, collator=Collator(2))(model)
    assert all(module.training for module in model.modules())
