"""Sketch sizes, and the error of sketched distances."""

import math
from typing import Any, NamedTuple

from ._array import Array, accumulation_dtype, array_namespace, check_device
from .head_logits import HeadLogits
from .logits import DenseLogits


def sketch_size(*, vectors: int, epsilon: float, failure: float) -> int:
    r"""Return the sketch size from which on all distances are preserved, for maps of independent random signs.

    .. math:: d \ge \frac{4 \ln n + 2 \ln(1 / \delta)}{\epsilon^2 / 2 - \epsilon^3 / 3}

    Parameters
    ----------
    vectors
        How many are compared, n: the memory and one batch.
    epsilon
        Largest relative error of a squared distance, in (0, 1); that of a distance is about half of it.
    failure
        Probability delta, in (0, 1), that any of the n (n - 1) / 2 distances is further off.

    Returns
    -------
    int
        The smallest such d. It depends neither on the vocabulary nor on lengths.

    Raises
    ------
    ValueError
        Where an argument is out of its range.

    Notes
    -----
    Proved by Achlioptas (2003), theorem 1.1, for a dense d x (time vocab) matrix of independent signs over sqrt(d)
    (with delta = n^-beta), which no one can store here. For our sketches it is a guide, not a theorem: what is proved
    of them is a variance. On logits close to rank one, at sizes for 5 % failures, `ShiftedSketch` broke the bound for
    at most 1.5 % of 200 seeds, `PairedSketch` for up to 46 %, `FourierSketch` for up to 13 %; see `distortion` and
    ``docs/pages/concepts/sketches.md``. Tropp (2011) treats one-sided subsampled transforms, for subspaces.
    """
    if vectors < 2 or vectors != int(vectors):
        msg = f"`vectors` must be a whole number of at least 2, got {vectors}: one vector has no distance"
        raise ValueError(msg)
    for name, value in (("epsilon", epsilon), ("failure", failure)):
        if not 0 < value < 1:
            msg = f"`{name}` must lie between 0 and 1, got {value}"
            raise ValueError(msg)
    needed = 4 * math.log(vectors) + 2 * math.log(1 / failure)
    return math.ceil(needed / (epsilon**2 / 2 - epsilon**3 / 3))


def fourier_rank(dim: int, /, *, time: int, vocab: int) -> tuple[int, int]:
    r"""Return the (time, vocabulary) ranks of `dim` numbers with which a `FourierSketch` preserves lengths best.

    .. math:: \operatorname{Var} \frac{|z|^2}{|L|_F^2} \approx
        \left(1 + \frac{2}{r_2} \frac{T - r_2}{T - 1}\right) \left(1 + \frac{2}{r_1} \frac{V - r_1}{V - 1}\right) - 1

    holds for logits of rank one, the worst case and close to real ones, whose rows share one large part. Its least
    value under r1 r2 <= dim is near r1 = r2, unless a side is shorter than that: the lesser of two ranks decides.

    Parameters
    ----------
    dim
        Numbers in the sketch.
    time, vocab
        Lengths T and V of the two sides.

    Returns
    -------
    tuple[int, int]
        With a product of at most `dim`; (32, 32) for 1,024 numbers, where the paper takes (8, 128).

    Notes
    -----
    O(dim).
    """
    for name, size in (("dim", dim), ("time", time), ("vocab", vocab)):
        if size < 1:
            msg = f"`{name}` must be at least 1, got {size}"
            raise ValueError(msg)

    def variance(rank: tuple[int, int]) -> float:
        return math.prod(1 + 2 / r * (n - r) / max(n - 1, 1) for r, n in zip(rank, (time, vocab), strict=True))

    splits = ((rows, min(dim // rows, vocab)) for rows in range(1, min(time, dim) + 1))
    return min(splits, key=variance)


class Distortion(NamedTuple):
    """Error of the distances between sketches. Arrays of shape ()."""

    ratio: Array  # mean over pairs of sketched / true distance
    spread: Array  # standard deviation of that ratio over pairs
    lowest: Array  # least ratio
    highest: Array  # largest ratio
    agreement: Array  # rank correlation of sketched and true mean distances, by which diversity ranks samples


def distortion(sketches: Array, exact: Any, /) -> Distortion:
    r"""Compare the distances between sketches with the true ones.

    .. math:: \rho_{ij} = \frac{\|z_i - z_j\|_2}{\|L_i - L_j\|_F}, \quad i < j

    Parameters
    ----------
    sketches
        (batch, dim).
    exact
        (batch, ...): what was sketched, rows aligned by position: logits, padded on the right with zero rows, or
        ``head(hidden)``, whose logits are not computed in full.

    Returns
    -------
    Distortion
        Identical samples count in no ratio: NaN where all are.

    Raises
    ------
    ValueError
        Where batch sizes differ, there is no pair, or devices differ.

    Notes
    -----
    Distances are taken directly, not through a Gram matrix. O(batch^2 (dim + size of a sample)): for measuring, not for
    training.
    """
    if isinstance(exact, (DenseLogits, HeadLogits)):
        exact = exact.compact()
    xp = array_namespace(sketches, exact)
    check_device("exact", exact, like=sketches, like_name="sketches")
    batch = sketches.shape[0]
    if exact.shape[0] != batch or batch < 2:
        msg = f"`sketches` and `exact` must be of the same 2 or more samples, got {batch} and {exact.shape[0]}"
        raise ValueError(msg)
    found, true = _distances(sketches), _distances(exact)
    counted = (true > 0) & (xp.triu(xp.ones_like(true), k=1) > 0)
    number = xp.sum(xp.astype(counted, true.dtype))
    nothing = xp.full_like(number, xp.nan)
    number = xp.where(number > 0, number, nothing)
    ratio = found / xp.where(true > 0, true, xp.ones_like(true))
    mean = xp.sum(xp.where(counted, ratio, xp.zeros_like(ratio))) / number
    square = xp.sum(xp.where(counted, (ratio - mean) ** 2, xp.zeros_like(ratio))) / number
    return Distortion(
        ratio=mean,
        spread=xp.sqrt(square),
        lowest=xp.where(number > 0, xp.min(xp.where(counted, ratio, xp.full_like(ratio, xp.inf))), nothing),
        highest=xp.where(number > 0, xp.max(xp.where(counted, ratio, xp.zeros_like(ratio))), nothing),
        agreement=_rank_correlation(xp.mean(found, axis=1), xp.mean(true, axis=1)),
    )


def _distances(points: Array) -> Array:
    """Return all distances (batch, batch)."""
    xp = array_namespace(points)
    points = xp.reshape(xp.astype(points, accumulation_dtype(points)), (points.shape[0], math.prod(points.shape[1:])))
    rows = [xp.sqrt(xp.sum((points - points[i, :]) ** 2, axis=1)) for i in range(points.shape[0])]
    return xp.stack(rows)


def _rank_correlation(x: Array, y: Array) -> Array:
    xp = array_namespace(x)
    middle = (x.shape[0] - 1) / 2
    ranks = [xp.astype(xp.argsort(xp.argsort(part)), x.dtype) - middle for part in (x, y)]
    return xp.sum(ranks[0] * ranks[1]) / xp.sum(ranks[0] ** 2)
