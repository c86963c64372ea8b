"""What the runs of a block say: each policy against random, and against others where the block asks for that.

A difference is between runs of the same seed, which start from the same weights and see the same candidates: loss (or
the share of answers that are right) of the one minus that of the other. Intervals are Student's, at 95 %; with few
seeds they are wide, as they should be. `p` is that of the paired t-test, corrected by Holm's method over all
comparisons of the block.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from grid import Cell, cells
from scipy import stats

__all__ = ["CONTROL", "Comparison", "Interval", "Runs", "compare", "holm", "interval", "metric", "read"]

CONTROL = "random"
METRICS = ("accuracy", "exact_match")
"""Shares of right answers; a task has one of them, or none."""

Runs = dict[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]]
"""Place -> policy -> seed -> run."""


class Interval(NamedTuple):
    """A mean difference, half the width of its 95 % interval, and the p of its being zero."""

    mean: float
    half_width: float
    p: float

    @property
    def clear(self) -> bool:
        """Whether zero is outside."""
        return abs(self.mean) > self.half_width


class Comparison(NamedTuple):
    """One policy against another, in one place of the grid."""

    place: tuple[Any, ...]
    policy: str
    rival: str
    seeds: int
    loss: Interval
    answers: Interval | None
    """In the `metric`; None where there is none."""


def read(file: Path, block: dict[str, Any]) -> Runs:
    """The runs of a block that have been made; a place is there once each of its policies has run under a seed."""
    rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.strip()]
    known = {Cell(**{name: row[name] for name in Cell._fields if name in row}): row for row in rows}
    found: Runs = defaultdict(lambda: defaultdict(dict))
    for cell in cells(block):
        if cell in known:
            found[cell.place][cell.policy][cell.seed] = known[cell]
    asked = {(cell.place, cell.policy) for cell in cells(block)}
    return {place: whole for place in found if (whole := _whole(found[place], [p for q, p in asked if q == place]))}


def _whole(runs: dict[str, dict[int, dict[str, Any]]], policies: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
    """The runs of the seeds that all `policies` have, so that means over seeds are over the same ones."""
    seeds = set.intersection(*(set(runs.get(policy, {})) for policy in policies))
    return {policy: {seed: runs[policy][seed] for seed in sorted(seeds)} for policy in runs} if seeds else {}


def metric(runs: Sequence[dict[str, Any]]) -> str | None:
    """The one of `METRICS` that all `runs` have."""
    return next((name for name in METRICS if all(run.get(name) is not None for run in runs)), None)


def compare(runs: Runs, pairs: Sequence[Sequence[str]] = ()) -> list[Comparison]:
    """Each policy with random, then the pairs; p corrected over all of them."""
    found = []
    for place, policies in runs.items():
        asked = [(policy, CONTROL) for policy in policies if policy != CONTROL]
        asked += [(left, right) for left, right in pairs if CONTROL not in (left, right)]
        for left, right in asked:
            seeds = sorted(policies.get(left, {}).keys() & policies.get(right, {}).keys())
            if seeds:
                mine, theirs = ([policies[name][seed] for seed in seeds] for name in (left, right))
                loss, name = interval(mine, theirs, "loss"), metric(mine + theirs)
                answers = None if name is None else interval(mine, theirs, name)
                found.append(Comparison(place, left, right, len(seeds), loss, answers))
    return _corrected(found)


def interval(mine: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], name: str) -> Interval:
    """The differences in `name` between runs of the same seeds, in their order."""
    values = [a[name] - b[name] for a, b in zip(mine, theirs, strict=True)]
    if len(values) < 2 or len(set(values)) == 1:
        return Interval(fmean(values), float("inf"), 1.0)
    test: Any = stats.ttest_1samp(values, 0.0)
    bounds = test.confidence_interval()
    return Interval(fmean(values), float(bounds.high - bounds.low) / 2, float(test.pvalue))


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """With the losses' p for all of them together."""
    corrected = holm([one.loss.p for one in found])
    return [one._replace(loss=one.loss._replace(p=p)) for one, p in zip(found, corrected, strict=True)]


def holm(found: Sequence[float]) -> list[float]:
    """Correct each p for being one of several."""
    corrected, worst = [1.0] * len(found), 0.0
    for rank, place in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        worst = corrected[place] = max(worst, min(1.0, found[place] * (len(found) - rank)))
    return corrected
