"""Random draws in proportion to weights."""

from .._array import Array, array_namespace
from ..choice import Budget
from ..gumbel import gumbel_top_k

_LEAST = 1e-30  # a weight of 0 has no logarithm


def draw(weights: Array, length: Array, /, *, budget: Budget, seed: tuple[int, int], groups: Array | None) -> Array:
    """Draw indices (k,) without replacement, each next one with probability proportional to `weights`.

    `weights` (batch,), of at least 0; empty samples are drawn after all others, and those of weight NaN last. `length`,
    `budget`, `seed` and `groups` as in `gumbel_top_k`, whose importance weights are left out: these draws are biased on
    purpose.
    """
    xp = array_namespace(weights)
    logarithms = xp.log(xp.where(weights < _LEAST, xp.full_like(weights, _LEAST), weights))
    return gumbel_top_k(logarithms, length, budget=budget, temperature=1.0, seed=seed, groups=groups).indices
