"""Importance weights of a selection as a batch entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import uds_core as uds

from .. import batches
from ..batches.entries import same_kind, tokens
from .assignment import Assignment

__all__ = ["attach", "weights_of"]


def weights_of(policy: uds.Policy, selection: uds.Selection | None, number: int, /) -> torch.Tensor | None:
    """Return the importance weights (number,) of the samples of a pool, on the host; None where there are none.

    1 for all where a policy with weights does not choose, as in a warm-up.
    """
    if selection is None:
        return torch.ones(number) if policy.needs.weights else None
    host = selection.on_host()
    if host.weights is None:
        return None
    weights = torch.zeros(number)
    weights[torch.from_numpy(host.indices).long()] = torch.from_numpy(host.weights).float()
    return weights


def attach(
    trained: Sequence[Any],
    assignments: Sequence[Assignment],
    weights: Sequence[torch.Tensor | None],
    /,
    *,
    fraction: float,
    indexer: batches.Indexer | None,
    layout: batches.Layout,
) -> list[Any]:
    """Return the batches that this process trains with an entry `loss_weights`, in the shape of their labels.

    Parameters
    ----------
    trained
        The batches of all assignments, in order.
    weights
        For each assignment, the weights (pool,) of its candidates; None: all are 1.
    fraction
        Chosen tokens over all tokens: the loss is divided by the number of chosen tokens, and the weighted sum
        estimates the sum over all.
    indexer, layout
        As in `batches.view`.

    Raises
    ------
    ValueError
        When a batch has no labels, or another number of samples than were chosen.
    """
    parts: list[torch.Tensor] = []
    for assignment, pool in zip(assignments, weights, strict=True):
        parts += assignment.weights(torch.ones(len(assignment.pool.tokens)) if pool is None else pool)
    return [
        _with_weights(batch, part * fraction, indexer=indexer, layout=layout) if len(part) else batch
        for batch, part in zip(trained, parts, strict=True)
    ]


def _with_weights(
    batch: Any, weights: torch.Tensor, /, *, indexer: batches.Indexer | None, layout: batches.Layout
) -> Any:
    if batch.get("labels") is None:
        msg = "a policy with importance weights needs `labels` in the batch, whose loss they multiply"
        raise ValueError(msg)
    samples = batches.view(batch, indexer=indexer, layout=layout)
    if len(samples) != len(weights):
        msg = f"{len(weights)} samples were chosen, and the batch to train has {len(samples)}: weights do not fit"
        raise ValueError(msg)
    spread = samples.spread(weights.to(tokens(batch).device, non_blocking=True))
    return same_kind(batch, {**samples.batch, batches.LOSS_WEIGHTS: spread})
