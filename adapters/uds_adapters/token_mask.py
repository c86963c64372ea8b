"""Token masks: loss on a fraction of each sample's tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from .batches import entries
from .scoring import models
from .scoring.head_probe import undisturbed
from .scoring.layouts import Layouts

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the mixin alone imports no transformers

__all__ = ["TokenMaskMixin", "keep_highest", "token_losses"]


def token_losses(model: torch.nn.Module, batch: Mapping[str, Any], /) -> torch.Tensor:
    """Return the loss of each target (batch, time), at the position of its label; 0 elsewhere.

    Not for encoder-decoders. Costs one forward pass of the batch, with its logits, in evaluation mode.
    """
    bare = models.bare(model)
    shift = Layouts(model).of(batch).shift
    targets = _targets(batch, shift=shift)
    with undisturbed(model):
        output = models.run(model, models.inputs_for(bare, entries.inputs(batch), None))
    logits = models.logits_of(output).float()
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), targets.to(logits.device), ignore_index=entries.IGNORE, reduction="none"
    )
    return losses.roll(1, 1) if shift and batch.get("shift_labels") is None else losses


def keep_highest(batch: Mapping[str, Any], values: torch.Tensor, /, *, keep: float, shift: bool = True) -> Any:
    """Return `batch` with the targets of the highest values of each row; the other labels become -100.

    Parameters
    ----------
    batch
        With `labels` or `shift_labels`. A row of packed documents counts as one sample.
    values
        (batch, time), one for each target at the position of its label: `token_losses`, or their difference from those
        of another model. NaN comes last.
    keep
        Fraction of each row's targets to train, in (0, 1], rounded up.
    shift
        Whether the model's loss shifts the labels, so that the first is none. False for masked language models.

    Raises
    ------
    ValueError
        When the batch has no labels, or shapes or `keep` do not fit.
    """
    if not 0.0 < keep <= 1.0:
        msg = f"`keep` must be a fraction in (0, 1], got {keep}: 0.6 trains on six of ten tokens"
        raise ValueError(msg)
    name = "labels" if batch.get("shift_labels") is None else "shift_labels"
    _targets(batch)  # raises without labels
    labels = batch[name]
    if values.shape != labels.shape:
        msg = f"`values` must have shape {tuple(labels.shape)}, as the labels, got {tuple(values.shape)}"
        raise ValueError(msg)
    there = labels != entries.IGNORE
    if name == "labels" and shift:
        there[:, 0] = False  # nothing predicts the first token
    worth = values.to(labels.device).float().nan_to_num(nan=torch.finfo(torch.float32).min)
    order = worth.masked_fill(~there, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    # in float64, less what rounding may have added: 0.07 of 100 are 7
    number = (keep * there.sum(1, keepdim=True).double() - 1e-9).ceil()
    left_out = rank >= number
    return entries.same_kind(batch, {**batch, name: labels.masked_fill(left_out, entries.IGNORE)})


class TokenMaskMixin(Trainer):
    """Mask the batches of any `transformers.Trainer` before it counts the tokens that the loss is divided by.

    With a policy: ``class Mine(UDSTrainerMixin, TokenMaskMixin, Trainer)`` masks what the policy chose.

    Parameters
    ----------
    token_mask
        Function from the model and a batch to the batch with fewer targets, such as
        ``lambda model, batch: keep_highest(batch, token_losses(model, batch), keep=0.6)``.
    *args, **kwargs
        Of the next class.
    """

    def __init__(self, *args: Any, token_mask: Callable[[Any, Any], Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_mask = token_mask

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        """Draw the batches of a step and mask them."""
        drawn = (self._prepare_input(batch) for batch in islice(epoch_iterator, num_batches))
        masked = (self.token_mask(self.model, batch) for batch in drawn)
        return super().get_batch_samples(masked, num_batches, *args, **kwargs)


def _targets(batch: Mapping[str, Any], *, shift: bool = True) -> torch.Tensor:
    targets = entries.targets(batch, shift=shift)
    if targets is None:
        msg = f"`batch` must have `labels` to mask; it has {sorted(batch)}"
        raise ValueError(msg)
    return targets
