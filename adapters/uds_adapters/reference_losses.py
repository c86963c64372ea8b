"""Reference losses of a data set by sample id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import uds_core as uds

from . import checkpoints
from .batches import entries
from .scoring.scorer import Scorer

__all__ = ["load", "measure", "save"]

_ABOUT = {"holds": "losses of a model, by identity"}


def measure(
    model: torch.nn.Module,
    loader: Iterable[Mapping[str, Any]],
    /,
    *,
    id_field: str,
    score_batch_size: int | None = None,
) -> uds.Ledger:
    """Return the token-mean loss of each sample, as `uds.RHOLoss` and `uds.LossDrop` measure their own.

    Parameters
    ----------
    model
        The reference model, on the device of the batches; for ``uds.LossDrop(start=...)``, the model before training.
        It may have another architecture with the same tokenizer.
    loader
        Batches of the data set, collated as in training; every sample once is enough.
    id_field
        Batch entry with the id of each sample, a whole number.
    score_batch_size
        Samples in one forward pass; None: all of a batch at once.

    Returns
    -------
    uds_core.Ledger
        For ``uds.RHOLoss(reference=...)`` and ``uds.LossDrop(start=...)``. Samples without a finite loss are left out.

    Raises
    ------
    TypeError, ValueError
        When a batch lacks the ids, or cannot be split into samples.

    Notes
    -----
    One forward pass over the data, in evaluation mode and without gradients.
    """
    scorer, losses = Scorer(model, score_batch_size=score_batch_size), dict[int, float]()
    for batch in loader:
        left, ids, beside = entries.apart(batch, id_field=id_field, fields=())
        if "id" not in beside:
            msg = f"`{id_field}` must hold whole numbers, got {ids[:3]}: number the samples of the data set"
            raise TypeError(msg)
        samples = scorer.view(left)
        losses.update(zip(ids, scorer.examine(samples, uds.MaxLoss())["loss"].tolist(), strict=True))
    return uds.Ledger.of(losses)


def save(file: Path | str, losses: uds.Ledger, /) -> None:
    """Write `losses` to `file`, a safetensors file, atomically."""
    checkpoints.save(file, {name: torch.from_numpy(array) for name, array in uds.flatten(losses).items()}, _ABOUT)


def load(file: Path | str, /) -> uds.Ledger:
    """Return the losses that `save` wrote.

    Raises
    ------
    ValueError
        When the file is something else, or damaged.
    FileNotFoundError
        When the file does not exist.
    """
    tensors, _ = checkpoints.load(file, about=_ABOUT)
    return uds.restore(uds.Ledger.empty(), {name: tensor.numpy() for name, tensor in tensors.items()})
