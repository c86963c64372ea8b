"""Many runs in few numbers: means over seeds, and their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .bootstrap import over_seeds
from .run import RunResult

__all__ = ["Summary", "summarise"]


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
        samples=fmean(run.samples for run in runs),
        tokens={name: fmean(run.tokens[name] for run in runs) for name in runs[0].tokens},
        seconds={name: fmean(run.seconds[name] for run in runs) for name in runs[0].seconds},
        flagged={name: fmean(values[index] for index in chosen) for name, values in flags.items()},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
