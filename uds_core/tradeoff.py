"""Utility + alpha x diversity, and the spreads that make alpha independent of the model."""

from numbers import Real
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from . import _options
from ._array import Array, array_namespace, at_least_one, constant, device, is_finite, take, take_along_rows

_WINDOW = 512  # past candidates that a spread is taken over: many batches, yet short beside a training run

Alpha: TypeAlias = float | Literal["auto", "rank"]


class Spreads(NamedTuple):
    """The latest utilities and diversities of candidates, oldest first; NaN where there are none yet."""

    utility: Array  # (window,)
    diversity: Array  # (window,)

    @classmethod
    def empty(cls, *, like: Array, window: int = _WINDOW) -> "Spreads":
        """Return empty windows, of the library, dtype and device of `like`."""
        nothing = empty_window(like=like, window=window)
        return cls(nothing, nothing)

    def updated(self, utility: Array, diversity: Array | None) -> "Spreads":
        """Return the windows after a pool of candidates; `diversity` is None while the memory is empty."""
        return Spreads(
            shift_in(self.utility, utility),
            self.diversity if diversity is None else shift_in(self.diversity, diversity),
        )


class Combined(NamedTuple):
    """Scores (batch,), and the factor on diversity in units of utility (0-d), the effective alpha."""

    scores: Array
    alpha: Array


def combine(utility: Array, diversity: Array, /, *, alpha: Alpha, spreads: Spreads, weight: float = 1.0) -> Combined:
    r"""Score of each candidate.

    .. math::
        s_i = U_i + \alpha D_i, \qquad s_i = \frac{U_i}{\operatorname{spread} U} + w
        \frac{D_i}{\operatorname{spread} D}, \qquad s_i = \operatorname{rank} U_i + w \operatorname{rank} D_i

    Parameters
    ----------
    utility, diversity
        (batch,) each, both in units of logits.
    alpha
        A number; ``"auto"`` for the second form, both terms in units of their spread over past candidates; ``"rank"``
        for the third, their ranks within this pool.
    spreads
        Past candidates, this pool included; read for ``"auto"`` only.
    weight
        w, the pull of diversity under ``"auto"`` and ``"rank"``: 1 = both count the same.

    Returns
    -------
    Combined
        Scores and effective alpha: the number, w spread(U) / spread(D), or w. A term whose spread is zero is 0.

    Notes
    -----
    The spread is the interquartile range: one outlier does not move it, and it scales with the logits.
    """
    check_alpha(alpha)
    check_weight(weight)
    weight = float(weight)
    xp = array_namespace(utility, diversity)
    if alpha == "rank":
        scores = rank(utility) + weight * rank(diversity)
        return Combined(scores, xp.full((), weight, dtype=utility.dtype, device=device(utility)))
    if alpha != "auto":
        alpha = float(alpha)
        return Combined(utility + alpha * diversity, xp.full((), alpha, dtype=utility.dtype, device=device(utility)))
    both = spread(xp.stack([spreads.utility, spreads.diversity]))
    terms = _ratio(xp.stack([utility, diversity]), both[:, None])
    return Combined(terms[0, :] + weight * terms[1, :], weight * _ratio(both[0], both[1]))


def check_alpha(alpha: object, /) -> None:
    """Raise where `alpha` is none that `combine` knows."""
    _options.check(
        "alpha",
        alpha,
        "'auto', 'rank' or a number of at least 0",
        kind=(str, Real),
        fits=lambda a: a in ("auto", "rank") if isinstance(a, str) else 0 <= a < float("inf"),
    )


def check_weight(weight: object, /) -> None:
    """Raise where `weight` is none that `combine` knows."""
    _options.number("weight", weight, "a number of at least 0", fits=lambda w: 0 <= w < float("inf"))


def spread(values: Array, /) -> Array:
    """Return the interquartile range (...) of the finite `values` (..., n); 0 where there are none. O(n log n)."""
    quartiles = _quantiles(values, (0.25, 0.75))
    return quartiles[..., 1] - quartiles[..., 0]


def median(values: Array, /) -> Array:
    """Return the median (...) of the finite `values` (..., n); 0 where there are none. O(n log n)."""
    return _quantiles(values, (0.5,))[..., 0]


def rank(values: Array, /) -> Array:
    """Return the rank of each of `values` (n,), in (0, 1), the highest last; equals have the same rank, NaN stays NaN.

    All the same: 0, so that a term without information adds nothing. O(n log n).
    """
    xp = array_namespace(values)
    if not values.shape[0]:
        return values
    unknown = xp.isnan(values)
    ordered = xp.sort(xp.where(unknown, xp.full_like(values, xp.inf), values))
    known = xp.where(unknown, xp.zeros_like(values), values)
    below, upto = xp.searchsorted(ordered, known), xp.searchsorted(ordered, known, side="right")
    fractiond = xp.astype(below + upto, values.dtype) / (2 * values.shape[0])
    telling = xp.any(~unknown & (known != ordered[0]))
    ranks = xp.where(telling, fractiond, xp.zeros_like(fractiond))
    return xp.where(unknown, xp.full_like(values, xp.nan), ranks)


def percentile(values: Array, among: Array, /) -> Array:
    """Return the fraction of the finite entries of `among` (m,) below each of `values` (n,); equals count half.

    So the n values themselves have 1/2n, 3/2n, ... NaN for a value that is not finite. O((n + m) log m).
    """
    return percentiles(values, among)[0]


def percentiles(values: Array, among: Array, /) -> tuple[Array, Array]:
    """Return `percentile` from below and from above: the second is counted, so that equals stay equal."""
    xp = array_namespace(values, among)
    ordered, count = _finite_in_order(among)
    finite = is_finite(values)
    known = xp.where(finite, values, xp.zeros_like(values))
    below, upto = xp.searchsorted(ordered, known), xp.searchsorted(ordered, known, side="right")
    number = xp.where(finite, xp.astype(below + upto, values.dtype), xp.full_like(values, xp.nan))
    every = 2 * at_least_one(count)
    return number / every, (2 * count - number) / every


def empty_window(*, like: Array, window: int = _WINDOW) -> Array:
    """Return an empty window (window,), all NaN, of the library, dtype and device of `like`."""
    _options.whole("window", window)
    xp = array_namespace(like)
    return xp.full((window,), xp.nan, dtype=like.dtype, device=device(like))


def shift_in(window: Array, values: Array, /) -> Array:
    """Append `values` (n,) to a window; of more than fit, take evenly spaced ones."""
    xp = array_namespace(window)
    size, n = window.shape[0], values.shape[0]
    if n > size:  # the last alone would make the order of a long pool count
        places = np.asarray([i * n // size for i in range(size)], dtype=np.int32)
        return take(values, constant(places, like=values))
    return xp.concat([window, values])[-size:]


def _finite_in_order(values: Array) -> tuple[Array, Array]:
    xp = array_namespace(values)
    finite = is_finite(values)
    count = xp.sum(xp.astype(finite, values.dtype), axis=-1)
    return xp.sort(xp.where(finite, values, xp.full_like(values, xp.inf)), axis=-1), count


def _quantiles(values: Array, fractions: tuple[float, ...]) -> Array:
    """Interpolate linearly between order statistics of the finite `values` (..., n): (..., number of fractions)."""
    xp = array_namespace(values)
    if not values.shape[-1]:
        return xp.zeros((*values.shape[:-1], len(fractions)), dtype=values.dtype, device=device(values))
    ordered, count = _finite_in_order(values)
    last = at_least_one(count) - 1
    place = xp.stack([last * fraction for fraction in fractions], axis=-1)
    below = xp.floor(place)
    index = xp.concat([below, xp.minimum(below + 1, last[..., None])], axis=-1)
    at = take_along_rows(ordered, xp.astype(index, xp.int32))
    at = xp.where(count[..., None] > 0, at, xp.zeros_like(at))  # infinity, where nothing is finite
    lower, upper = at[..., : len(fractions)], at[..., len(fractions) :]
    return lower + (place - below) * (upper - lower)


def _ratio(values: Array, scale: Array) -> Array:
    xp = array_namespace(values)
    safe = xp.where(scale > 0, scale, xp.ones_like(scale))
    # NaN stays NaN, also where the term is left out: such a sample must not look like the others
    return xp.where((scale > 0) | xp.isnan(values), values / safe, xp.zeros_like(values))
