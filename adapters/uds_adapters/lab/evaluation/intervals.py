"""Bootstrap intervals of a difference between two policies, over seeds and held-out samples, in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Interval", "over_seeds", "paired"]

_DRAWS = 4000
_CONFIDENCE = 0.95
_NORMAL = 1.959964  # its quantile at 0.975
_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706)  # the same of Student's t with 1 to 5 degrees of freedom


class Interval(NamedTuple):
    """A mean with the 95 % interval around it."""

    mean: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half its width."""
        return (self.high - self.low) / 2


def paired(differences: ArrayLike, weights: ArrayLike, /) -> Interval:
    r"""The mean difference of two policies, with a 95 % interval.

    .. math:: \frac{1}{S} \sum_s \frac{\sum_i d_{si}}{\sum_i w_i}

    Parameters
    ----------
    differences
        (S, N): of each seed and held-out sample, one policy's number minus the other's, such as summed losses.
    weights
        (N,): what the sum over samples is divided by: tokens for losses, ones for answers.

    Notes
    -----
    Both policies saw the same candidates under one seed and were measured on the same samples, so what a seed or a
    sample does to both cancels out. Seeds are drawn anew with replacement, samples too, and both deviations are added;
    what is neither the seed's nor the sample's own counts twice, which errs on the careful side. Resampling S seeds
    makes intervals too narrow, above all for 2 or 3: their deviations are widened by sqrt(S / (S - 1)), and by
    Student's t over the normal quantile. A single seed says nothing of others: its interval is over samples alone.
    """
    d, w = np.asarray(differences, float), np.asarray(weights, float)
    mean = float(d.sum(1).mean() / w.sum())
    draw = np.random.default_rng(0)
    drawn = draw.multinomial(d.shape[1], np.full(d.shape[1], 1 / d.shape[1]), size=_DRAWS)
    deviations = drawn @ d.mean(0) / np.maximum(drawn @ w, 1e-12) - mean
    if len(d) > 1:
        deviations = deviations + _seed_deviations(d.sum(1) / w.sum(), draw)
    return _interval(mean, deviations)


def over_seeds(values: Sequence[float], /) -> Interval | None:
    """The mean of one number a seed, with a 95 % interval over seeds; None for a single one."""
    if len(values) < 2:
        return None
    return _interval(float(np.mean(values)), _seed_deviations(np.asarray(values, float), np.random.default_rng(0)))


def _seed_deviations(values: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    seeds = len(values)
    means = values[draw.integers(seeds, size=(_DRAWS, seeds))].mean(1)
    widened = math.sqrt(seeds / (seeds - 1)) * _student(seeds - 1) / _NORMAL
    return widened * (means - values.mean())


def _interval(mean: float, deviations: np.ndarray) -> Interval:
    low, high = np.quantile(deviations, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Interval(mean, mean + float(low), mean + float(high))


def _student(freedom: int) -> float:
    """The quantile at 0.975; from six degrees of freedom on by its expansion around the normal one."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z, n = _NORMAL, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + terms[0] / n + terms[1] / n**2 + terms[2] / n**3
