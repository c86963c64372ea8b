"""Differences between each policy and its baselines, with intervals and p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from ..evaluation.heldout import Measured
from ..evaluation.intervals import over_seeds, paired
from ..training.budget import Kind
from ..training.run_result import RunResult

__all__ = ["RIVALS", "Comparison", "Summary", "comparisons", "summarise"]

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


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The runs of one policy; all numbers but the spread and the interval are means over seeds."""

    policy: str
    seeds: int
    loss_before: float | None
    """None where nothing is held out."""
    loss: float | None
    """Held out, at the end; None where it is no number in one of the seeds: a mean over the others would flatter."""
    spread: float | None
    """Standard deviation of `loss` over seeds; None for a single one."""
    samples: float
    tokens: dict[str, float]
    seconds: dict[str, float]
    flagged: dict[str, float]
    """Of the samples trained on, the share with a flag, such as a wrong answer."""
    interval: tuple[float, float] | None = None
    """Of `loss`, 95 %, over seeds on these held-out samples; None for a single one."""
    accuracy: float | None = None
    """At the end; None where it was not asked for."""
    exact_match: float | None = None
    diverged: int = 0
    """Seeds whose held-out loss ended in no number."""
    correlation: float | None = None
    """Rank correlation of predicted with exact scores; None where none are predicted."""


def summarise(runs: Sequence[RunResult], /, *, flags: Mapping[str, Sequence[bool]] | None = None) -> list[Summary]:
    """One summary a policy, in the order of their first run.

    Parameters
    ----------
    runs
        Of all policies and seeds.
    flags
        Known properties of the training examples: name -> one truth value an example.
    """
    policies = list(dict.fromkeys(run.policy for run in runs))
    return [_summary([run for run in runs if run.policy == policy], flags or {}) for policy in policies]


def _summary(runs: Sequence[RunResult], flags: Mapping[str, Sequence[bool]]) -> Summary:
    last = [run.evaluations[-1] for run in runs if run.evaluations]
    final = [evaluation.loss for evaluation in last]
    diverged = sum(not math.isfinite(loss) for loss in final)
    final = [] if diverged else final
    interval = over_seeds(final)
    chosen = [index for run in runs for step in run.selected for index in step]
    return Summary(
        policy=runs[0].policy,
        seeds=len(runs),
        loss_before=fmean(run.evaluations[0].loss for run in runs) if last else None,
        loss=fmean(final) if final else None,
        spread=stdev(final) if len(final) > 1 else None,
        interval=None if interval is None else (interval.low, interval.high),
        accuracy=_mean([evaluation.accuracy for evaluation in last]),
        exact_match=_mean([evaluation.exact_match for evaluation in last]),
        diverged=diverged,
        correlation=_mean([run.correlation for run in runs]),
        samples=fmean(run.samples for run in runs),
        tokens={name: fmean(run.tokens[name] for run in runs) for name in runs[0].tokens},
        seconds={name: fmean(run.seconds[name] for run in runs) for name in runs[0].seconds},
        flagged={name: fmean(values[index] for index in chosen) for name, values in flags.items()},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
