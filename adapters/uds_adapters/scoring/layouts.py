"""Whether a model's own loss shifts the labels, and the layout of its batches."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .. import batches
from ..batches import IGNORE, Layout
from . import models
from .head_probe import undisturbed

__all__ = ["Layouts"]

_LOSSES = {"ForCausalLMLoss": True, "ForMaskedLMLoss": False}
_TOKENS = 16  # of one sample, in the passes that measure


class Layouts:
    """The layout of the batches of one model.

    Parameters
    ----------
    model
        The model in training, as the loop calls it.
    shift
        Whether the target of row t is the label of t + 1. Default: as in the model's own loss. It is known for the
        models of transformers, and measured with the first batch for others, by up to six passes of one short sample.
    sequences
        Sequences of each sample.
    measure
        Whether to measure it; else labels are taken to be shifted where it is not known.

    Notes
    -----
    A model without a loss of its own is taken to be causal, and its labels to be shifted, unless its first logits
    depend on later tokens.
    """

    def __init__(
        self, model: torch.nn.Module, *, shift: bool | None = None, sequences: int = 1, measure: bool = True
    ) -> None:
        self._model, self._bare = model, models.bare(model)
        self._sequences, self._measure = sequences, measure
        self._decoder = models.is_encoder_decoder(self._bare)
        self._shift = _known_shift(self._bare) if shift is None else shift

    def of(self, batch: Any, /) -> Layout:
        """Return the layout of a batch.

        Raises
        ------
        ValueError
            When the model reads tokens on both sides and has no loss that tells whether it shifts labels.
        """
        if self._shift is None and self._measure and isinstance(batch, Mapping) and batch.get("labels") is not None:
            self._shift = self._measured(batch)
        return Layout(self._shift is not False, self._decoder, self._sequences)

    def _measured(self, batch: Mapping[str, Any]) -> bool | None:
        """Return whether the loss shifts labels; None where this batch does not show it."""
        if models.is_sharded(self._bare):
            return True  # passes are shared by all processes, which may not have a batch at the same time
        with undisturbed(self._model):
            try:
                shift = self._by_loss(batch)
                both_sides = shift is None and self._reads_both_sides(batch)
            except Exception:
                return True
        if both_sides:
            msg = (
                f"{type(self._bare).__name__} reads the tokens on both sides, as masked language models do, and its "
                "forward returns no loss that tells whether labels are shifted: say it with `shift`: False if the "
                "label of a token is scored at that token, True if at the token before"
            )
            raise ValueError(msg)
        return True if shift is None else shift

    def _by_loss(self, batch: Mapping[str, Any]) -> bool | None:
        """Return whether the label of the first token is without effect on the loss, and that of the last is not."""
        for row in _rows(batch):
            inputs = models.inputs_for(self._bare, row, None)
            words = _two_words(row)
            if self._depends(inputs, row["labels"], 0, words):
                return False
            if self._depends(inputs, row["labels"], -1, words):
                return True
        return None

    def _depends(self, inputs: dict[str, Any], labels: torch.Tensor, place: int, words: tuple[int, int]) -> bool:
        """Return whether the loss differs between two labels at one place, without any other label."""
        losses = []
        for word in words:
            one = torch.full_like(labels, IGNORE)
            one[:, place] = word
            losses.append(_loss(models.run(self._model, {**inputs, "labels": one})))
        return all(torch.isfinite(loss) for loss in losses) and bool(losses[0] != losses[1])

    def _reads_both_sides(self, batch: Mapping[str, Any]) -> bool:
        """Return whether the logits of the first token depend on the last one."""
        for row in _rows(batch):
            logits = []
            for word in _two_words(row):
                tokens = row["input_ids"].clone()
                tokens[:, -1] = word
                inputs = models.inputs_for(self._bare, {**row, "input_ids": tokens}, None)
                logits.append(models.logits_of(models.run(self._model, inputs))[:, 0])
            if not torch.allclose(*logits, rtol=1e-4, atol=1e-6):
                return True
        return False


def _known_shift(model: Any) -> bool | None:
    """Return what the code of a model of transformers says; None for others."""
    if models.is_encoder_decoder(model):
        return False
    forward = inspect.unwrap(type(model).forward)
    if "loss_function" not in getattr(getattr(forward, "__code__", None), "co_names", ()):
        return None
    function = getattr(model, "_loss_function", None)
    losses = sys.modules.get("transformers.loss.loss_utils")
    if function is None and losses is not None:
        kind = getattr(model, "loss_type", None)
        function = losses.LOSS_MAPPING.get(kind, losses.ForCausalLMLoss)
    return _LOSSES.get(getattr(function, "__name__", ""))


def _rows(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield short batches of one sample without padding."""
    samples = batches.view(batch)
    for number in range(min(len(samples), 4)):
        row = dict(samples.take([number]))
        mask = row.get("attention_mask")
        first = 0 if mask is None else int((mask[0] != 0).int().argmax())
        time = row["input_ids"].shape[1]
        length = time if mask is None else int((mask != 0).sum())
        cut = slice(first, first + min(length, _TOKENS))
        has_time = {name for name, value in row.items() if getattr(value, "shape", ())[:2] == (1, time)}
        if cut.stop - cut.start > 1:
            yield {name: value[:, cut] if name in has_time else value for name, value in row.items()}


def _two_words(row: Mapping[str, Any]) -> tuple[int, int]:
    """Return two different token ids of a row, or numbers beside its only one."""
    words = row["input_ids"].unique().tolist()
    return (words[-1], words[0]) if len(words) > 1 else (words[0], max(words[0] - 1, 0) if words[0] else 1)


def _loss(output: Any) -> torch.Tensor:
    """Return the loss of a model's output: the entry of that name, or the first number of a tuple."""
    if isinstance(output, Mapping):
        loss = output.get("loss")
    elif isinstance(output, (tuple, list)):
        loss = next((part for part in output if isinstance(part, torch.Tensor) and part.ndim == 0), None)
    else:
        loss = getattr(output, "loss", None)
    if not isinstance(loss, torch.Tensor):
        return torch.tensor(torch.nan)
    return loss.detach().mean()
