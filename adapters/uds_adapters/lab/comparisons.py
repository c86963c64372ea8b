"""Each policy against chance, and against the longest samples: how far apart, and whether that is chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .bootstrap import paired
from .budget import Kind
from .evaluate import Measured
from .run import RunResult

__all__ = ["RIVALS", "Comparison", "comparisons"]

RIVALS = ("random", "longest")
"""Whom every policy has to beat, where they are among the policies."""


_Side = tuple[str, Mapping[int, Measured]]  # a policy, and what was measured under each seed


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One metric of two policies, on the same seeds and held-out samples."""

    policy: str
    rival: str
    metric: str
    """``loss`` (lower is better), ``accuracy`` or ``exact_match``."""
    difference: float
    """Of the policy, minus that of the rival."""
    low: float
    high: float
    """The 95 % interval."""
    seeds: int
    budget: Kind
    """What both spent alike."""
    better: Literal["policy", "rival"] | None
    """None where the interval holds 0; and with one seed, which does not tell what another would give."""

    @property
    def margin(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


def comparisons(runs: Sequence[RunResult], /, *, budget: Kind) -> list[Comparison]:
    """Every policy with every rival, in each metric; none where nothing is held out.

    A policy that diverged under one seed is left out: a comparison under the others would flatter it.
    """
    diverged = {run.policy for run in runs if run.measured and not math.isfinite(run.measured.loss)}
    policies = list(dict.fromkeys(run.policy for run in runs if run.policy not in diverged))
    found = {policy: {r.seed: r.measured for r in runs if r.policy == policy and r.measured} for policy in policies}
    rivals = [rival for rival in RIVALS if rival in policies]
    pairs = [(policy, rival) for n, rival in enumerate(rivals) for policy in policies if policy not in rivals[: n + 1]]
    return [
        _compared(metric, budget, (policy, found[policy]), (rival, found[rival]))
        for policy, rival in pairs
        for metric in _metrics(found[policy], found[rival])
    ]


def _metrics(mine: Mapping[int, Measured], theirs: Mapping[int, Measured]) -> list[str]:
    """Those that both have; none where they have no seed in common."""
    seeds = mine.keys() & theirs.keys()
    return ["loss", *mine[min(seeds)].answers] if seeds else []


def _compared(metric: str, budget: Kind, left: _Side, right: _Side) -> Comparison:
    (policy, mine), (rival, theirs) = left, right
    seeds = sorted(mine.keys() & theirs.keys())
    tokens = mine[seeds[0]].tokens
    pairs = [(_numbers(mine[seed], metric), _numbers(theirs[seed], metric)) for seed in seeds]
    differences = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
    difference, low, high = paired(differences, tokens if metric == "loss" else [1] * len(tokens))
    return Comparison(
        policy=policy,
        rival=rival,
        metric=metric,
        difference=difference,
        low=low,
        high=high,
        seeds=len(seeds),
        budget=budget,
        better=_better(metric, low, high) if len(seeds) > 1 else None,
    )


def _numbers(measured: Measured, metric: str) -> Sequence[float]:
    return measured.losses if metric == "loss" else measured.answers[metric]


def _better(metric: str, low: float, high: float) -> Literal["policy", "rival"] | None:
    if low <= 0 <= high:
        return None
    return "policy" if (high < 0) == (metric == "loss") else "rival"
