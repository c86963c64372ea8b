"""The wall-clock side: seconds of training until a policy has the held-out loss that full fine-tuning ends with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from analysis import Runs

__all__ = ["GOAL", "reached", "report"]

GOAL = "full"


def reached(curve: Sequence[Sequence[float]], loss: float) -> float | None:
    """Seconds at which the straight lines between evaluations first come down to `loss`; None where they do not.

    `curve`: step, samples, seconds, loss of each evaluation.
    """
    for (*_, before, high), (*_, after, low) in itertools.pairwise(curve):
        if low <= loss:
            share = 0.0 if high <= loss else (high - loss) / (high - low)
            return before + share * (after - before)
    return None


def report(runs: Runs) -> str:
    """A table for each place that has full fine-tuning, the fastest first, in Markdown."""
    lines = []
    for (task, condition, keep, _), policies in runs.items():
        if GOAL not in policies:
            continue
        seeds = len(policies[GOAL])
        lines += [
            f"#### {task}, {condition}, keep {keep:g}: seconds to the loss of full fine-tuning, {seeds} seeds\n",
            "| policy | seconds (sd) | seeds that came so far | loss when the time is over | samples trained |",
            "|---|---|---|---|---|",
            *_rows(policies),
            "",
        ]
    return "\n".join(lines)


def _rows(policies: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    found = []
    for policy, by_seed in policies.items():
        seeds = sorted(by_seed.keys() & policies[GOAL].keys())
        times = [reached(by_seed[seed]["curve"], policies[GOAL][seed]["loss"]) for seed in seeds]
        known = [time for time in times if time is not None]
        mean = fmean(known) if known else float("inf")
        shown = "not reached" if not known else f"{mean:.1f}" + (f" ({stdev(known):.1f})" if len(known) > 1 else "")
        loss, samples = (fmean(by_seed[seed][name] for seed in seeds) for name in ("loss", "samples"))
        row = f"| `{policy}` | {shown} | {len(known)} of {len(seeds)} | {loss:.3f} | {samples:,.0f} |"
        found.append((len(seeds) - len(known), mean, row))
    return [row for *_, row in sorted(found)]
