"""Random draws in favour of high scores, with importance weights."""

from typing import Any, NamedTuple

import numpy as np

from . import _options, _random
from ._array import Array, array_namespace, constant, to_numpy
from ._random import Stream
from .choice import Budget, check_scores


class GumbelSelection(NamedTuple):
    """Indices (k,) and importance weights (k,): a weighted sum over the chosen estimates the sum over the pool."""

    indices: Array
    weights: Array


def gumbel_top_k(
    scores: Array,
    length: Array,
    /,
    *,
    budget: Budget,
    temperature: float,
    seed: tuple[int, int],
    groups: Array | None = None,
) -> GumbelSelection:
    r"""Draw samples without replacement, each next one with probability proportional to exp(score / temperature).

    .. math::
        \phi_i = \log p_i, \quad p = \operatorname{softmax}(s / \tau), \qquad
        w_i = \frac{1}{1 - \exp(-e^{\phi_i - \kappa})}

    The k largest of phi_i + Gumbel noise are such a draw; kappa is the (k + 1)-th largest.

    Parameters
    ----------
    scores, length, budget, groups
        As in `top_k`; a budget of `keep` or `count`. Where too few have rows and a score, empty ones come next, and
        those whose score is NaN last, all with weight 0.
    temperature
        tau, in units of the scores: small is nearly `top_k`, large is nearly uniform.
    seed
        (seed, step), two whole numbers that the noise depends on, and on nothing else.

    Returns
    -------
    GumbelSelection
        With weights for which sum w_i f_i over the chosen is an unbiased estimate of the sum of f over the pool (of
        each group, over those that can be drawn): 1 / (k p_i) is not.

    Notes
    -----
    O(batch log batch). Source: Kool, van Hoof, Welling, arXiv 1903.06059 (Gumbel-top-k); Duffield, Lund, Thorup (2007),
    priority sampling.
    """
    xp = array_namespace(scores, length)
    _options.number("temperature", temperature, "positive and finite", fits=lambda tau: 0 < tau < float("inf"))
    _options.check("seed", seed, "(seed, step), two whole numbers", kind=tuple, fits=lambda given: len(given) == 2)
    check_scores(scores, length, groups, budget)
    if budget.token_limit is not None:
        msg = "`budget` must be `keep` or `count`: there are no unbiased weights for a budget of tokens"
        raise ValueError(msg)
    able = ~xp.isnan(scores) & (length > 0)
    generator: Any = _random.generator(seed[0], Stream.GUMBEL, seed[1])
    noise = constant(generator.gumbel(size=scores.shape[0]), like=scores, dtype=scores.dtype)
    belongs = np.zeros(scores.shape[0], dtype=np.int64) if groups is None else to_numpy(groups)
    indices = [constant(np.empty(0, np.int32), like=scores)]  # of no group at all
    weights = [scores[:0]]
    for group in np.unique(belongs):
        members = constant(np.flatnonzero(belongs == group).astype(np.int32), like=scores)
        drawn = _draw(
            xp.take(scores, members),
            xp.take(able, members),
            xp.take(noise, members),
            budget=budget,
            temperature=temperature,
        )
        indices.append(xp.take(members, drawn.indices))
        weights.append(drawn.weights)
    return GumbelSelection(xp.concat(indices), xp.concat(weights))


def _draw(scores: Array, able: Array, noise: Array, *, budget: Budget, temperature: float) -> GumbelSelection:
    """Draw from one group; return indices into it, and weights."""
    xp = array_namespace(scores)
    lowest = xp.full_like(scores, -xp.inf)
    top = xp.max(xp.where(able, scores, lowest))
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    # log p_i but for a constant, which falls out of phi - kappa; less the best first, so that no division overflows
    phi = xp.where(able, (scores - top) / float(temperature), lowest)
    phi = xp.minimum(phi, xp.full_like(phi, 1e30))  # infinities have no difference
    noisy = phi + noise
    k = budget.size(scores.shape[0])
    by_noise = xp.argsort(noisy, descending=True, stable=True)
    last = xp.astype(~able, xp.int8) + xp.astype(xp.isnan(scores), xp.int8)
    order = xp.take(by_noise, xp.argsort(xp.take(last, by_noise), stable=True))
    indices = xp.astype(order[:k], xp.int32, copy=False)
    if k == scores.shape[0]:
        return GumbelSelection(indices, xp.astype(xp.take(able, indices), scores.dtype))
    floor = xp.full_like(phi, -1e30)  # stands for minus infinity, from which none can be taken
    kappa = xp.maximum(xp.take(noisy, order[k : k + 1]), floor[:1])
    excess = xp.maximum(xp.take(phi, indices), floor[:k]) - kappa
    # beyond e^30 a sample is certain to be drawn; expm1, since a rare one has a small probability and a large weight
    probability = -xp.expm1(-xp.exp(xp.minimum(excess, xp.full_like(excess, 30.0))))
    drawable = xp.take(able, indices)
    weights = 1 / xp.where(drawable, probability, xp.ones_like(probability))
    return GumbelSelection(indices, xp.where(drawable, weights, xp.zeros_like(probability)))
