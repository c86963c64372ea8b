"""Held-out numbers along a run, and their means and bands over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

__all__ = ["ALONG", "METRICS", "curves"]

ALONG = ("samples", "tokens", "seconds")
METRICS = ("loss", "accuracy", "exact_match")

Point = Mapping[str, Any]


def curves(runs: Sequence[Mapping[str, Any]], policies: Sequence[str], /) -> dict[str, Any]:
    """Of each policy the points of every seed, and their means.

    A mean is taken of points that are equally far in their runs, so seeds need not have made equally many steps. A
    metric's `low` and `high` are one standard deviation off its mean; None for a single seed.
    """
    measured = [run for run in runs if run["evaluations"]]
    points = [point for run in measured for point in run["evaluations"]]
    metrics = [metric for metric in METRICS if points and all(point.get(metric) is not None for point in points)]
    along = [name for name in ALONG if points and all(_is_count(point.get(name)) for point in points)]
    shown = []
    for policy in policies:
        seeds = [run for run in measured if run["policy"] == policy]
        if seeds:
            lines = [{"seed": run["seed"], "points": _points(run, along, metrics)} for run in seeds]
            shown.append({"policy": policy, "seeds": lines, "mean": _means(seeds, along, metrics)})
    return {"along": along, "metrics": metrics, "policies": shown}


def _points(run: Mapping[str, Any], along: Sequence[str], metrics: Sequence[str]) -> list[dict[str, float]]:
    return [{name: point[name] for name in (*along, *metrics)} for point in run["evaluations"]]


def _means(seeds: Sequence[Mapping[str, Any]], along: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    curves = [run["evaluations"] for run in seeds]
    return [_mean(curves, part, along, metrics) for part in max(map(_parts, curves), key=len)]


def _mean(
    curves: Sequence[Sequence[Point]], part: float, along: Sequence[str], metrics: Sequence[str]
) -> dict[str, Any]:
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


def _parts(curve: Sequence[Point]) -> list[float]:
    """How far each point is in its run, in [0, 1]."""
    last = curve[-1]["step"] or 1
    return [point["step"] / last for point in curve]


def _at(part: float, curve: Sequence[Point], name: str) -> float:
    """The value at a part of the run, between the two points about it."""
    parts = _parts(curve)
    for (before, start), (after, end) in pairwise(zip(parts, curve, strict=True)):
        if part <= after and after > before:
            share = max(0.0, (part - before) / (after - before))
            return start[name] + share * (end[name] - start[name])
    return curve[-1][name]


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float))
