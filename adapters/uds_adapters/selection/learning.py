"""Exact scores of trained samples, given to a policy that learns from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import uds_core as uds

from .assignment import Assignment
from .history import History

__all__ = ["expected", "learn"]


def learn(
    policy: Any, history: History, scores: torch.Tensor, /, *, like: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Give a policy the exact scores (n,) of the samples that it awaits; fewer are those of the latest.

    `like`: features, where the state may have been loaded and not yet restored.
    """
    if like is not None:
        history.restore(policy, like)
    if number := history.pending(policy):
        unknown = scores.new_full((max(0, number - len(scores)),), torch.nan)
        history.state = policy.learn(history.state, torch.cat([unknown, scores])[-number:])


def expected(
    trained: Sequence[Any], assignments: Sequence[Assignment], selections: Sequence[uds.Selection | None], /
) -> tuple[list[tuple[Any, torch.Tensor, Mapping[str, torch.Tensor]]], int]:
    """Return what a `TrainingProbe` expects, and the number of samples chosen.

    For each batch that this process trains: the places of its samples among the chosen ones, and numbers beside it.
    """
    number, places = 0, []
    beside: list[Mapping[str, torch.Tensor]] = []
    for assignment, selection in zip(assignments, selections, strict=True):
        numbers = torch.zeros(len(assignment.pool.tokens), dtype=torch.int64)
        if selection is not None:
            chosen = torch.from_numpy(selection.on_host().indices).long()
            numbers[chosen] = number + 1 + torch.arange(len(chosen))
            number += len(chosen)
        places += [part - 1 for part in assignment.weights(numbers)]
        beside += assignment.beside()
    return list(zip(trained, places, beside, strict=True)), number
