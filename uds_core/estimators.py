"""Sums of singular values of stacks of small matrices (batch, rows, columns), each exact or of known error.

Scaled before anything is squared, without control flow that depends on values, and a sample that is not finite gives
NaN without spoiling the others.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from . import _random
from ._array import (
    Array,
    accumulation_dtype,
    array_namespace,
    constant,
    constant_in_graphs,
    device,
    is_finite,
    multiply_add,
)
from .gram import largest, nonzero, triangle

_POLAR_LOWER = 1e-6  # `by_polar` loses at most 0.07 of this, relative to its bound, for each singular value
_CUSHION = (
    0.02  # fitted to all of a long interval, a step would send some large values to almost nothing, into rounding
)
_MARGIN = 1.01  # the end of an interval would be an unstable fixed point: rounding grew tenfold in each step
_POWER = 2  # turns of subspace iteration: the gap between captured and other singular values counts to the fifth power


class Captured(NamedTuple):
    """Part of each sample inside a subspace of `rank` directions; both (batch,)."""

    nuclear: Array  # nuclear norm inside
    rest: Array  # Frobenius norm outside


def by_singular_values(matrix: Array, /) -> Array:
    """Sum of the singular values of `matrix`, (batch,)."""
    xp = array_namespace(matrix)
    finite, matrix = _finite_or_zero(matrix)
    return _nan_unless(finite, xp.sum(xp.linalg.svdvals(matrix), axis=1))


def by_eigenvalues(gram: Array, /) -> Array:
    """Sum of the roots of the eigenvalues of `gram` (batch, n, n); values within rounding error count as zero.

    Rounding errors were at most 7 eps of the largest eigenvalue where n = 1024; the floor is 2 sqrt(n) eps of it.
    """
    xp = array_namespace(gram)
    finite, gram = _finite_or_zero(gram)
    values = xp.linalg.eigvalsh(gram)
    floor = values[:, -1:] * (2 * gram.shape[1] ** 0.5 * xp.finfo(gram.dtype).eps)
    roots = xp.sqrt(xp.where(values > floor, values, xp.zeros_like(values)))
    return _nan_unless(finite, xp.sum(roots, axis=1))


def by_polar(matrix: Array, /) -> Array:
    r"""Sum of `matrix` times its orthogonal polar factor, (batch,): matrix products only.

    .. math:: \|Y\|_* = \langle Y, P \rangle, \qquad X_0 = Y / \beta, \quad X_{k+1} = a_k X + (b_k R + c_k R^2) X,
        \quad R = X X^T, \quad X_k \to P

    beta: the fourth root of \|R^2\|_F, between the largest singular value and n^(1/8) times it.
    The coefficients are the best for the interval that the singular values lie in after each step. Source: Polar
    Express, arXiv 2505.16932; Newton-Schulz iteration.
    """
    xp = array_namespace(matrix)
    wide = accumulation_dtype(matrix)
    matrix = matrix if matrix.shape[1] <= matrix.shape[2] else xp.matrix_transpose(matrix)
    scale = largest(matrix)
    start = matrix / nonzero(scale)
    bound = _bound(start @ xp.matrix_transpose(start)) ** 0.5
    start = start / nonzero(bound)
    x = start
    for a, b, c in _polar_steps(_POLAR_LOWER):
        square = x @ xp.matrix_transpose(x)
        turn = multiply_add(square, square, square, scale=b, factor=c)
        x = multiply_add(x, turn, x, scale=a, factor=1.0)
    total = xp.sum(xp.astype(start * x, wide, copy=False), axis=(1, 2))
    return total * xp.astype((scale * bound)[:, 0, 0], wide, copy=False)


def by_polar_of_gram(gram: Array, /) -> Array:
    """Return what `by_polar` returns, from Gram matrices (batch, n, n) in float64: four n x n products a step.

    Not for float32, where the rounding of the Gram matrix grows past the iteration's reach.
    """
    xp = array_namespace(gram)
    bound = _bound(gram)
    start = gram / nonzero(bound)
    square, weight = start, None  # X = weight times the logits, square = X X^T
    for a, b, c in _polar_steps(_POLAR_LOWER):
        turn = multiply_add(square, square, square, scale=b, factor=c)
        if weight is None:
            eye = xp.eye(gram.shape[1], dtype=gram.dtype, device=device(gram))
            weight = turn + a * eye[None, :, :]
        else:
            weight = multiply_add(weight, turn, weight, scale=a, factor=1.0)
        half = multiply_add(square, turn, square, scale=a, factor=1.0)
        square = multiply_add(half, half, turn, scale=a, factor=1.0)
    return xp.sum(start * weight, axis=(1, 2)) * bound[:, 0, 0] ** 0.5


def captured(pieces: Callable[[], Iterator[tuple[int, Array]]], /, *, columns: int, rank: int, seed: int) -> Captured:
    """Return the nuclear norm inside the leading `rank` directions of subspace iteration, and the rest outside.

    Each call of `pieces` yields (first column, block (batch, time, size)) of the matrices. The start is drawn along the
    columns: number and order of the rows change nothing but rounding.
    """
    weights = _weights(seed, columns, rank)

    def drawn(start: int, block: Array) -> Array:
        return block @ constant(weights[start : start + block.shape[2]], like=block, dtype=block.dtype)

    found = sum(drawn(start, block) for start, block in pieces())
    xp = array_namespace(found)
    scale = nonzero(largest(found))
    basis = xp.linalg.qr(found / scale, mode="reduced")[0]

    def scaled() -> Iterator[Array]:
        yield from (block / scale for _, block in pieces())

    for _ in range(_POWER):
        turned = sum(block @ (xp.matrix_transpose(block) @ basis) for block in scaled())
        basis = xp.linalg.qr(turned / nonzero(largest(turned)), mode="reduced")[0]
    across = xp.matrix_transpose(basis)
    inside = by_singular_values(triangle(across @ block for block in scaled()))
    # subtracted and then squared: the difference of two squares would lose what is small
    wide = accumulation_dtype(found)
    outside = sum(_sum_squares(block - basis @ (across @ block), wide) for block in scaled())
    return Captured(inside * scale[:, 0, 0], xp.sqrt(outside) * xp.astype(scale[:, 0, 0], wide, copy=False))


def _sum_squares(x: Array, wide: object) -> Array:
    xp = array_namespace(x)
    return xp.sum(x * x, axis=(1, 2), dtype=wide)


def _bound(gram: Array) -> Array:
    """Return a bound on the largest eigenvalue of `gram`, at most n^(1/4) times it: (batch, 1, 1)."""
    xp = array_namespace(gram)
    size = nonzero(largest(gram))
    square = (gram / size) @ (gram / size)
    return size * xp.sum(square * square, axis=(1, 2), keepdims=True) ** 0.25


@functools.lru_cache(maxsize=4)
@constant_in_graphs
def _polar_steps(lower: float) -> tuple[tuple[float, float, float], ...]:
    """Return the coefficients (a, b, c) of each step, which take [lower, 1] to 1 within float32 rounding."""
    low, high = lower, 1.0
    steps: list[tuple[float, float, float]] = []
    while high - low > 1e-8:
        floor = max(low, _CUSHION * high)
        a, b, c = _best_quintic(floor, high * _MARGIN if low < 0.5 else high)
        steps.append((a, b, c))
        low, least = (a * x + b * x**3 + c * x**5 for x in (low, floor))
        high = 2 - least
    return tuple(steps)


def _best_quintic(low: float, high: float) -> tuple[float, float, float]:
    """Return the odd polynomial a s + b s^3 + c s^5 that differs least from 1 on [low, high]: Remez exchange."""
    if high - low < 1e-3:  # its limit; the exchange would be ill-conditioned
        return 15 / 8, -10 / 8, 3 / 8
    inner = np.array([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high])
    a = b = c = 0.0
    for _ in range(100):
        points = np.array([low, *inner, high])
        system = np.stack([points, points**3, points**5, np.array([1.0, -1.0, 1.0, -1.0])], axis=1)
        a, b, c, _ = np.linalg.solve(system, np.ones(4))
        root = np.sqrt(9 * b * b - 20 * a * c)
        moved = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
        if np.abs(moved - inner).max() < 1e-14:
            break
        inner = moved
    return float(a), float(b), float(c)


@functools.lru_cache(maxsize=4)
@constant_in_graphs
def _weights(seed: int, columns: int, rank: int) -> np.ndarray:
    # bytes, not signs alone: of few signs two columns are soon the same
    return _random.generator(seed, _random.Stream.SUBSPACE).integers(-127, 128, size=(columns, rank), dtype=np.int8)


def _finite_or_zero(x: Array) -> tuple[Array, Array]:
    """Return which samples are finite (batch,), and `x` with zeros for the others, where solvers would raise."""
    xp = array_namespace(x)
    finite = xp.all(is_finite(x), axis=(1, 2))
    return finite, xp.where(finite[:, None, None], x, xp.zeros_like(x))


def _nan_unless(finite: Array, values: Array) -> Array:
    xp = array_namespace(values)
    return xp.where(finite, values, xp.full_like(values, xp.nan))
