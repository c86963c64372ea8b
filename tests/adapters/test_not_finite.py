"""Samples whose logits are not finite are not trained: fewer are, and one that is left alone is no batch."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import loops  # noqa: E402
import tiny  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

SMALL = {"keep": 0.5, "memory": 8, "dim": 16}
POLICIES = {"uds": uds.UDS(**SMALL), "drawn": uds.UDS(**SMALL, temperature=1.0), "maxloss": uds.MaxLoss(keep=0.5)}


def batch_with(broken):
    return loops.with_broken_tokens(broken)(1, 1, tiny.batch(4, seed=1))


@pytest.mark.parametrize("name", POLICIES)
def test_only_samples_with_a_score_are_trained(name):
    model = loops.broken_model()
    select = BatchSelector(model, POLICIES[name])
    for broken, number in ((0, 2), (2, 2), (3, 1)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (chosen,), _ = select.select_step([batch_with(broken)])
        assert sum("too few have a score" in str(one.message) for one in caught) == (number < 2)
        assert len(chosen["input_ids"]) == number
        assert not (chosen["input_ids"] == loops.BROKEN).any()
        loss = model(**{key: chosen[key] for key in ("input_ids", "attention_mask", "labels")}).loss
        assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(loss, [*model.parameters()]))


def test_of_samples_that_are_all_broken_nothing_is_trained():
    select = BatchSelector(loops.broken_model(), POLICIES["uds"])
    with pytest.warns(UserWarning, match="too few have a score"):
        assert select.select_step([batch_with(4)]) == ([], 0)
    with (
        pytest.warns(UserWarning, match="too few"),
        pytest.raises(ValueError, match="no sample of this batch can be chosen"),
    ):
        select(batch_with(4))
    with pytest.warns(UserWarning, match="too few"):
        assert len([*select.iterate([batch_with(4), batch_with(0), batch_with(4)])]) == 1
