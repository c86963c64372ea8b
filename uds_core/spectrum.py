"""Utility: nuclear norm of each logits matrix with bounds, and Frobenius norm."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from . import _options
from ._array import Array, array_namespace, device, has_float64, is_accelerator
from .estimators import Captured, by_eigenvalues, by_polar, by_polar_of_gram, by_singular_values, captured
from .gram import columns, gram, groups, parts, squares, triangle
from .head_logits import HeadLogits
from .logits import Logits, as_logits
from .rows import BLOCK_BYTES

NuclearMethod = Literal["auto", "svd", "eigh", "polar", "randomized", "sampled", "frobenius"]

SAMPLED_ENTRIES = 1152
_WIDE = 8  # a matrix so many times as wide as high is made square before the polar iteration


def nuclear_norm(
    logits: Any,
    /,
    *,
    mask: Array | None = None,
    method: NuclearMethod = "auto",
    rank: int = 32,
    entries: int = SAMPLED_ENTRIES,
    seed: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> Array:
    r"""Sum of the singular values of each sample's logits matrix, scored rows only.

    .. math:: \|L\|_* = \sum_k \sigma_k(L), \qquad \|L\|_F \le \|L\|_* \le \sqrt{\operatorname{rank} L}\, \|L\|_F

    Parameters
    ----------
    logits
        Dense (batch, time, vocab), or ``head(hidden)``: then the spectrum is taken of the time x width matrix with the
        same singular values, and the logits are never computed in full.
    mask
        (batch, time), true for the rows that are scored. Default: all.
    method
        ``"svd"``: singular values, exact to rounding. ``"eigh"``: roots of the eigenvalues of the smaller Gram matrix,
        accumulated in float64 where the device has it; singular values below 1.4 n^(1/4) sqrt(eps) of the largest are
        lost. ``"polar"``: the product with the orthogonal polar factor, by matrix products alone; those below 1e-6 are
        lost in part. ``"randomized"``: a lower bound, see `nuclear_bounds`. ``"sampled"``: of random entries of the
        vocabulary, unbiased in the Gram matrix L L^T; a head need not be prepared. ``"frobenius"``: `frobenius_norm` in
        its place. ``"auto"``: ``"svd"`` for float64 logits, ``"polar"`` on accelerators and without float64,
        ``"eigh"`` otherwise.
    rank
        Directions that ``"randomized"`` looks at.
    entries
        Entries of the vocabulary that ``"sampled"`` draws; where there are no more, all, exactly.
    seed
        Seed of the start of ``"randomized"``, and of the draw of ``"sampled"``.
    block_bytes
        Extra memory that the walk may take, beside a few n x n matrices: n = min(time, vocab), or min(time, width).

    Returns
    -------
    Array
        (batch,), in the dtype computed in (float32 for half floats). NaN for a sample with a non-finite scored row;
        0 for a sample without scored rows.

    Raises
    ------
    TypeError, ValueError
        Where shapes, dtypes, devices or options do not fit.

    Notes
    -----
    O(batch time width (width + n)) time on the head route, O(batch time n vocab) on the dense one; ``"randomized"``
    has `rank` in place of n, ``"sampled"`` costs O(batch time entries (width + n)). Measured errors and times:
    docs/pages/concepts/estimators.md.
    Source: UDS, arXiv 2510.16882; the way through the head is this library's.
    """
    if method not in get_args(NuclearMethod):
        msg = f"`method` must be one of {', '.join(map(repr, get_args(NuclearMethod)))}, got {method!r}"
        raise ValueError(msg)
    if method == "frobenius":
        return frobenius_norm(logits, mask=mask, block_bytes=block_bytes)
    if method == "randomized":
        return nuclear_bounds(logits, mask=mask, rank=rank, seed=seed, block_bytes=block_bytes)[0]
    logits = as_logits(logits).scored(mask)
    if method == "sampled":
        logits, method = logits.sampled(entries, seed=seed), "auto"
    estimate = _ESTIMATES[_fitting(logits) if method == "auto" else method]
    return _each(logits, lambda group: estimate(group, block_bytes), block_bytes)


def nuclear_bounds(
    logits: Any,
    /,
    *,
    mask: Array | None = None,
    rank: int = 32,
    seed: int = 0,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Array, Array]:
    r"""Return a lower and an upper bound of the nuclear norm, from the leading `rank` directions of each sample.

    .. math:: \|Q^T L\|_* \;\le\; \|L\|_* \;\le\; \|Q^T L\|_* + \sqrt{n - r}\; \|L - Q Q^T L\|_F

    Q: (time, r) orthonormal, from subspace iteration from a random start.

    Parameters
    ----------
    logits, mask, block_bytes
        As in `nuclear_norm`.
    rank
        r, cut to n = min(time, vocab), or min(time, width) through a head.
    seed
        Seed of the start.

    Returns
    -------
    tuple of two arrays
        (batch,) both, in the dtype computed in: bounds to its rounding. They meet where r = n.

    Raises
    ------
    TypeError, ValueError
        Where shapes, dtypes, devices or options do not fit.

    Notes
    -----
    O(batch time vocab rank) dense, O(batch time width (width + rank)) through a head.
    Source: subspace iteration as in Halko, Martinsson, Tropp, arXiv 0909.4061; the tail by Cauchy-Schwarz.
    """
    _options.whole("rank", rank)
    _options.seed(seed)
    logits = as_logits(logits).scored(mask)
    xp = array_namespace(logits.like)

    def bounds(group: Logits) -> Array:
        found, left = _captured(group, rank, seed, block_bytes)
        return xp.stack([found.nuclear, found.nuclear + left**0.5 * found.rest], axis=1)

    both = _each(logits, bounds, block_bytes, numbers=(2,))
    return both[:, 0], both[:, 1]


def frobenius_norm(logits: Any, /, *, mask: Array | None = None, block_bytes: int = BLOCK_BYTES) -> Array:
    r"""Return the Frobenius norm of each sample's logits, scored rows only: a lower bound of the nuclear norm.

    .. math:: \|L\|_F = \sqrt{\textstyle\sum_{tv} L_{tv}^2} = \sqrt{\textstyle\sum_k \sigma_k(L)^2}

    Parameters
    ----------
    logits, mask, block_bytes
        As in `nuclear_norm`.

    Returns
    -------
    Array
        (batch,), in the dtype computed in. NaN for a sample with a non-finite scored row.

    Notes
    -----
    One pass: O(batch time vocab) dense, O(batch time width^2) through a head.
    """
    logits = as_logits(logits).scored(mask)

    def norm(group: Logits) -> Array:
        total, scale = squares(group, block_bytes=block_bytes)
        return (total**0.5 * scale)[:, 0, 0]

    return _each(logits, norm, block_bytes)


def _each(
    logits: Logits, estimate: Callable[[Logits], Array], block_bytes: int, *, numbers: tuple[int, ...] = ()
) -> Array:
    """Apply `estimate` to each group of samples that fits into `block_bytes`; return `numbers` for each sample."""
    xp = array_namespace(logits.like)
    if 0 in logits.shape or (isinstance(logits, HeadLogits) and not logits.head.columns):  # no numbers: all are 0
        return xp.zeros((logits.shape[0], *numbers), dtype=logits.dtype, device=device(logits.like))
    found = [xp.astype(estimate(group), logits.dtype, copy=False) for group in groups(logits, block_bytes=block_bytes)]
    return found[0] if len(found) == 1 else xp.concat(found, axis=0)


def _fitting(logits: Logits) -> str:
    """Return the method for `"auto"`: exact for float64; no eigen-solver where it is slow or limited to float32."""
    xp = array_namespace(logits.like)
    if logits.dtype == xp.float64:
        return "svd"
    return "polar" if is_accelerator(logits.like) or not has_float64(logits.like) else "eigh"


def _by_svd(group: Logits, block_bytes: int) -> Array:
    return by_singular_values(triangle(parts(group, block_bytes=block_bytes)))


def _by_eigh(group: Logits, block_bytes: int) -> Array:
    squared, scale = gram(group, block_bytes=block_bytes)
    return by_eigenvalues(squared) * scale[:, 0, 0]


def _by_polar(group: Logits, block_bytes: int) -> Array:
    sides = group.shape[1:]
    if max(sides) <= _WIDE * min(sides):
        return by_polar(group.compact())
    if not has_float64(group.like):
        return by_polar(triangle(parts(group, block_bytes=block_bytes)))
    squared, scale = gram(group, block_bytes=block_bytes)
    return by_polar_of_gram(squared) * scale[:, 0, 0]


_ESTIMATES = {"svd": _by_svd, "eigh": _by_eigh, "polar": _by_polar}


def _captured(group: Logits, rank: int, seed: int, block_bytes: int) -> tuple[Captured, int]:
    """Return the part of each sample in `rank` directions, and the number of further directions."""
    full = min(group.shape[1:])
    rank = min(rank, full)

    def pieces() -> Iterator[tuple[int, Array]]:
        return columns(group, block_bytes=block_bytes)

    return captured(pieces, columns=group.shape[2], rank=rank, seed=seed), full - rank
