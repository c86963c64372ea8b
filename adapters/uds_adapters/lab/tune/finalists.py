"""Finalists of a search, compared with the default, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Any

from ..evaluation.intervals import Interval, paired

__all__ = ["Finalist", "best_of", "distinguishable", "finalist", "noise", "verdict"]

_CHANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A configuration that ran at the full budget with several seeds."""

    name: str
    losses: list[float]
    """One per seed; infinite where training diverged."""
    difference: Interval | None
    """Its loss minus the default's, paired; None for the default itself, and where one of them diverged."""

    @property
    def loss(self) -> float:
        """The mean over seeds."""
        return fmean(self.losses)


def finalist(
    name: str, runs: Sequence[dict[str, Any]], /, *, default: Sequence[dict[str, Any]] | None, rivals: int
) -> Finalist:
    """Return the finalist `name`, from its `runs` and the `default`'s of the same seeds.

    The interval is widened for the number of `rivals` from which the best is taken (Bonferroni): the lowest of several
    noisy numbers is partly low because of noise.
    """
    losses = [float("inf") if run["loss"] is None else run["loss"] for run in runs]
    every = [*runs, *(default or [])]
    if default is None or any(None in run["losses"] for run in every):
        return Finalist(name=name, losses=losses, difference=None)
    pairs = zip(runs, default, strict=True)
    rows = [[a - b for a, b in zip(ours["losses"], theirs["losses"], strict=True)] for ours, theirs in pairs]
    found = paired(rows, runs[0]["heldout_tokens"])
    return Finalist(name=name, losses=losses, difference=_widened(found, rivals))


def best_of(finalists: Sequence[Finalist], /) -> Finalist:
    """Return the one with the lowest mean loss; of equals the first."""
    return min(finalists, key=lambda one: one.loss)


def noise(finalists: Sequence[Finalist], default: Finalist, /) -> float | None:
    """Return the standard deviation over seeds of a run's difference to the default's; None for a single seed."""
    rows = [[a - b for a, b in zip(one.losses, default.losses, strict=True)] for one in finalists]
    sound = [variance(row) for row in rows if len(row) > 1 and all(abs(value) < float("inf") for value in row)]
    return fmean(sound) ** 0.5 if sound else None


def distinguishable(best: Finalist, /) -> bool:
    """Return whether it is better than the default by more than the noise of seeds and held-out samples."""
    return len(best.losses) > 1 and best.difference is not None and best.difference.high < 0


def verdict(best: Finalist, default: Finalist, /, *, searched: int, rivals: int) -> str:
    """Return a text on which configuration is best, and whether that may be noise."""
    if best is default:
        return (
            f"None of the {searched} configurations did better than the default ({default.name}, held-out loss "
            f"{default.loss:.3f}): stay with it."
        )
    if best.difference is None:
        return f"{best.name} did best, with a held-out loss of {best.loss:.3f}; the default diverged."
    mean, low, high = best.difference
    said = (
        f"{best.name} did best: a held-out loss of {best.loss:.3f}, against {default.loss:.3f} of the default "
        f"({default.name})"
    )
    if len(best.losses) == 1:
        return f"{said}. One seed does not show how much of the difference of {mean:+.3f} is noise: raise `--seeds`."
    how = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] over {len(best.losses)} seeds that the search had not seen"
    if rivals > 1:
        how += f", widened because it is the best of {rivals}"
    if distinguishable(best):
        return f"{said}. The difference, {how}, is more than noise."
    return (
        f"{said}. The difference, {how}, is not distinguishable from none: keep the default, or search with more "
        "seeds or a larger budget."
    )


def _widened(interval: Interval, rivals: int) -> Interval:
    normal = NormalDist()
    factor = normal.inv_cdf(1 - _CHANCE / 2 / max(1, rivals)) / normal.inv_cdf(1 - _CHANCE / 2)
    mean, low, high = interval
    return Interval(mean, mean + factor * (low - mean), mean + factor * (high - mean))
