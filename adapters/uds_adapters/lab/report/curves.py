"""Held-out metrics along a run, with means and bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from statistics import fmean, stdev
from typing import Any

__all__ = ["ALONG", "METRICS", "curves"]

ALONG = ("samples", "tokens", "seconds")
METRICS = ("loss", "accuracy", "exact_match")

Line = list[tuple[float, Mapping[str, Any]]]


def curves(runs: Sequence[Mapping[str, Any]], policies: Sequence[str], /, *, budget: str = "") -> dict[str, Any]:
    """Return for each policy the points of every seed, and their means.

    Costs that points are drawn along come in the order of `ALONG`, but seconds come first where all runs have the same
    `budget` of samples or tokens.

    A mean is taken of points that are equally far in their runs, so seeds may have different numbers of steps. A
    metric's `low` and `high` are one standard deviation off its mean; None for a single seed. The curve of a run that
    diverged ends where its numbers do, and the mean with the first that ends.
    """
    measured = [run for run in runs if run["evaluations"]]
    points = [point for run in measured for point in run["evaluations"]]
    first = [run["evaluations"][0] for run in measured]
    metrics = [metric for metric in METRICS if first and all(_is_number(point.get(metric)) for point in first)]
    along = [name for name in ALONG if points and all(_is_number(point.get(name)) for point in points)]
    if budget.partition("=")[0] in ("samples", "tokens"):
        along.sort(key=lambda name: name != "seconds")
    shown = []
    for policy in policies:
        lines = {run["seed"]: _line(run, metrics) for run in measured if run["policy"] == policy}
        if all(lines.values()) and lines:
            seeds = [{"seed": seed, "points": _points(line, along, metrics)} for seed, line in lines.items()]
            shown.append({"policy": policy, "seeds": seeds, "mean": _means(list(lines.values()), along, metrics)})
    return {"along": along, "metrics": metrics, "policies": shown}


def _line(run: Mapping[str, Any], metrics: Sequence[str]) -> Line:
    """Return the points before the first without a finite value, each with its position in the run, in [0, 1]."""
    last = run["evaluations"][-1]["step"] or 1
    whole = takewhile(lambda point: all(_is_number(point.get(name)) for name in metrics), run["evaluations"])
    return [(point["step"] / last, point) for point in whole]


def _points(line: Line, along: Sequence[str], metrics: Sequence[str]) -> list[dict[str, float]]:
    return [{name: point[name] for name in (*along, *metrics)} for _, point in line]


def _means(lines: Sequence[Line], along: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    end = min(line[-1][0] for line in lines)
    parts = [part for part, _ in max(lines, key=len) if part <= end]
    return [_mean(lines, part, along, metrics) for part in parts]


def _mean(curves: Sequence[Line], part: float, along: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    mean: dict[str, Any] = {name: fmean(_at(part, curve, name) for curve in curves) for name in along}
    for metric in metrics:
        values = [_at(part, curve, metric) for curve in curves]
        off = stdev(values) if len(values) > 1 else None
        centre = fmean(values)
        mean[metric] = {
            "mean": centre,
            "low": None if off is None else centre - off,
            "high": None if off is None else centre + off,
        }
    return mean


def _at(part: float, curve: Line, name: str) -> float:
    """Return the value at a position in the run, interpolated between the two nearest points."""
    for (before, start), (after, end) in pairwise(curve):
        if part <= after and after > before:
            weight = max(0.0, (part - before) / (after - before))
            return start[name] + weight * (end[name] - start[name])
    return curve[-1][1][name]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
