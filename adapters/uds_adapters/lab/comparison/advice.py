"""Advice of a comparison: what to train with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .statistics import Comparison, Summary

__all__ = ["advice"]

_RIVAL = "random"
_CHEAP = 1.25  # times the seconds of random selection: a policy that costs more has to show that it pays in seconds
_HARMLESS = ("targeted", "fresh:targeted", "fresh")  # need no forward pass, and were nowhere clearly behind random


def advice(measured: Mapping[str, Summary], found: Sequence[Comparison], /) -> str:
    """Return a sentence that names the policy to train with, and why; empty where the runs do not say.

    The best one that is better than random selection and costs little more; where there is none, one that is known to
    do no harm; else random selection.

    Parameters
    ----------
    measured
        Policy -> its runs, of those that ended in a loss.
    found
        Of `comparisons`.
    """
    fates = {one.policy: one for one in found if (one.rival, one.metric) == (_RIVAL, "loss")}
    if _RIVAL not in measured or not fates or any(one.seeds < 2 for one in fates.values()):
        return ""
    if not (seconds := _seconds(measured[_RIVAL])):
        return ""
    costs = {policy: _seconds(measured[policy]) / seconds for policy in fates}
    better = sorted((one.difference, policy) for policy, one in fates.items() if one.better == "policy")
    cheap = [policy for _, policy in better if costs[policy] <= _CHEAP]
    if cheap:
        return f"To train, take {cheap[0]}: better than random, in {costs[cheap[0]]:.2f} times its seconds."
    safe = next((policy for policy in _HARMLESS if policy in fates and fates[policy].better != "rival"), None)
    dear = _dear(better[0][1], costs) if better else ""
    if safe is not None:
        return f"To train, take {safe}: no worse than random, in {costs[safe]:.2f} times its seconds.{dear}"
    return f"To train, take random: nothing here is better at its price.{dear}"


def _dear(policy: str, costs: Mapping[str, float]) -> str:
    """Of a policy that is better, at a price."""
    times = f"{costs[policy]:.1f} times the seconds of random"
    return f" {policy} is better, in {times}: `--budget seconds=120` shows whether that pays."


def _seconds(summary: Summary) -> float:
    return summary.seconds.get("total", 0.0) + summary.seconds.get("preparation", 0.0)
