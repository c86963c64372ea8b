"""Metrics of selections for the log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

import uds_core as uds

from ..ranks import Ranks

__all__ = ["Costs", "Means", "means", "of"]


class Costs:
    """Seconds of a selection, and what its processes exchanged, from the construction on."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._began, self._bytes, self._seconds = time.perf_counter(), ranks.bytes, ranks.seconds

    def read(self) -> dict[str, float]:
        """Return the costs so far as metrics, by name."""
        gathered: dict[str, float] = {}
        if self._ranks.size > 1:
            gathered["gathered_bytes"] = float(self._ranks.bytes - self._bytes)
            gathered["gathering_seconds"] = self._ranks.seconds - self._seconds
        return {**gathered, "scoring_seconds": time.perf_counter() - self._began}


class Means:
    """Sum and number of the values of each metric: as large after a million selections as after one."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, metrics: Mapping[str, float], /) -> None:
        """Add one value of each metric."""
        for name, value in metrics.items():
            total, number = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, number + 1)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the values added, by name."""
        return {name: total / number for name, (total, number) in sorted(self._sums.items())}

    def sum(self, name: str, /) -> float:
        """Return the sum of a metric; 0 without a value."""
        return self._sums.get(name, (0.0, 0))[0]


def of(selection: uds.Selection | None, /) -> dict[str, float]:
    """Return the means of the score's parts and the policy's own metrics that are known; empty without a selection."""
    if selection is None:
        return {}
    host = selection.on_host()
    values = {f"{name}_mean": float(torch.from_numpy(part).float().nanmean()) for name, part in host.parts.items()}
    own = {name: float(value) for name, value in host.metrics.items()}
    return values | {name: value for name, value in own.items() if value == value}  # noqa: PLR0124 - not known yet


def means(metrics: Sequence[dict[str, float]], /) -> dict[str, float]:
    """Return the mean of each metric over the selections that have it."""
    total = Means()
    for one in metrics:
        total.add(one)
    return total.means()
