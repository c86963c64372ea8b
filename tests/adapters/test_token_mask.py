"""Tokens left out inside samples: which, and that they compose with any policy and trainer."""

import math
from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from recorded_trainer import Gradients, arguments  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.batches import trained_tokens  # noqa: E402
from uds_adapters.token_mask import TokenMaskMixin, keep_highest, token_losses  # noqa: E402
from uds_adapters.transformers import UDSTrainerMixin  # noqa: E402


def slow_mask(labels, values, keep):
    """Row by row, place by place."""
    kept = torch.full_like(labels, -100)
    for row in range(len(labels)):
        places = [t for t in range(1, labels.shape[1]) if labels[row, t] != -100]
        worth = {t: -math.inf if values[row, t].isnan() else float(values[row, t]) for t in places}
        for t in sorted(places, key=lambda t: (-worth[t], t))[: math.ceil(keep * len(places))]:
            kept[row, t] = labels[row, t]
    return kept


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("keep", [0.01, 0.5, 0.6, 1.0])
def test_the_highest_stay(left, keep):
    batch = tiny.batch(6, left=left, more=2)
    values = torch.randn(batch["labels"].shape, generator=torch.Generator().manual_seed(0))
    values[0, :] = math.nan
    values[1, 2:5] = 1.0  # ties: the first stay
    masked = keep_highest(batch, values, keep=keep)
    assert torch.equal(masked["labels"], slow_mask(batch["labels"], values, keep))
    assert type(masked) is type(batch)
    assert masked["input_ids"] is batch["input_ids"]
    assert trained_tokens(keep_highest(batch, values, keep=1.0)) == trained_tokens(batch)


def test_a_share_is_not_rounded_up_twice():
    batch = {"input_ids": torch.ones(1, 101, dtype=torch.int64), "labels": torch.ones(1, 101, dtype=torch.int64)}
    for keep, kept in ((0.07, 7), (0.15, 15), (0.29, 29), (0.291, 30)):
        masked = keep_highest(batch, torch.rand(1, 101), keep=keep)
        assert int((masked["labels"][:, 1:] != -100).sum()) == kept, keep


def test_shifted_labels_stay_shifted():
    batch = tiny.batch(3)
    targets = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    shifted = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "shift_labels": targets}
    model = tiny.llama()
    ours = keep_highest(batch, token_losses(model, batch), keep=0.5)["labels"]
    theirs = keep_highest(shifted, token_losses(model, shifted), keep=0.5)["shift_labels"]
    assert torch.equal(torch.nn.functional.pad(ours[:, 1:], (0, 1), value=-100), theirs)


def test_losses_stand_where_their_labels_do():
    batch, model = tiny.batch(4), tiny.llama()
    losses = token_losses(model, batch)
    there = batch["labels"] != -100
    there[:, 0] = False
    assert torch.equal(losses != 0, there)
    assert float(losses.sum() / there.sum()) == pytest.approx(model(**batch).loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keep": 0.0}, "`keep` must be a fraction"),
        ({"keep": 1.5}, "`keep` must be a fraction"),
        ({"values": torch.zeros(2, 3)}, "`values` must have shape"),
        ({"batch": {"input_ids": torch.ones(2, 3, dtype=torch.int64)}}, "`batch` must have `labels`"),
    ],
)
def test_wrong_use(change, said):
    batch = tiny.batch(3)
    given: dict[str, Any] = {"batch": batch, "values": torch.zeros(batch["labels"].shape), "keep": 0.5, **change}
    with pytest.raises(ValueError, match=said):
        keep_highest(given["batch"], given["values"], keep=given["keep"])


class Masked(UDSTrainerMixin, TokenMaskMixin, transformers.Trainer):
    """A policy, then a mask; keeps what was trained on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def training_step(self, model, inputs, num_items_in_batch=None, **more):
        self.seen.append(({name: x.clone() for name, x in inputs.items()}, num_items_in_batch))
        return super().training_step(model, inputs, num_items_in_batch, **more)


@pytest.mark.parametrize("policy", [uds.UDS(keep=0.5, memory=16, dim=16), uds.Random(keep=0.5), uds.MaxLoss(keep=0.5)])
@pytest.mark.parametrize("scope", ["micro", "step"])
def test_gradients_are_those_of_the_tokens_that_stay(tmp_path, policy, scope):
    gradients, start = Gradients(), tiny.llama()
    trainer = Masked(
        model=tiny.llama(),
        args=arguments(tmp_path, max_steps=1, gradient_accumulation_steps=2),
        train_dataset=tiny.examples(96),
        data_collator=tiny.collate,
        callbacks=[gradients],
        policy=policy,
        scope=scope,
        token_mask=lambda model, batch: keep_highest(batch, token_losses(model, batch), keep=0.5),
    )
    trainer.train()
    total = 0
    for batch, _ in trainer.seen:
        tokens = trained_tokens(batch)
        total += tokens
        (start(**batch).loss * tokens).backward()
        assert len(batch["input_ids"]) == 4
    assert {int(number) for _, number in trainer.seen} == {total}
    expected = torch.cat([p.grad.flatten() for p in start.parameters() if p.grad is not None]) / total
    torch.testing.assert_close(gradients.steps[0], expected, rtol=1e-5, atol=1e-7)
