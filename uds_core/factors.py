"""Square factors of tall matrices, from blocks of their rows: C with C C^T = A^T A."""

from collections.abc import Iterable
from typing import Any

from ._array import Array, accumulation_dtype, array_namespace, device, qr_triangle

_COLUMNS = 128  # of the Gram matrix at once: what lies below the diagonal is not computed, nearly half of it


def by_qr(blocks: Iterable[Array], /) -> Array:
    """Return C = R^T of a QR decomposition: unlike a root of A^T A it keeps the small singular values."""
    triangle: Any = None
    for block in blocks:
        xp = array_namespace(block)
        triangle = qr_triangle(block if triangle is None else xp.concat([triangle, block], axis=0))
    return array_namespace(triangle).matrix_transpose(triangle)


def by_gram(blocks: Iterable[Array], /) -> Array:
    r"""Return C = V sqrt(D) of the eigenvalues of A^T A = V D V^T, in half of the time of `by_qr`.

    Products in the dtype of the blocks, their sum in float64 where the device has it. A row that is near to the mean is
    subtracted first, and its part of the Gram matrix added exactly: the large mean row of many heads would otherwise
    decide the rounding. The relative error of each singular value of X C is at most half of eps cond^2, with eps that
    of the blocks and cond the condition number of A less its mean row; see docs/pages/concepts/estimators.md.
    """
    shift: Any = None
    total: Any = 0.0
    products: list[Any] = []
    number = 0
    for block in blocks:
        xp = array_namespace(block)
        wide = accumulation_dtype(block)
        if shift is None:
            shift = xp.mean(block, axis=0)
            products = [0.0] * -(-block.shape[1] // _COLUMNS)
        less = block - shift
        total = total + xp.sum(less, axis=0, dtype=wide)
        across = xp.matrix_transpose(less)
        for i, start in enumerate(range(0, less.shape[1], _COLUMNS)):
            part = across[start : min(start + _COLUMNS, less.shape[1]), :] @ less[:, start:]
            products[i] = products[i] + xp.astype(part, wide, copy=False)
        number += block.shape[0]
    return _root(_shifted_back(_whole(products), total, shift, number), shift.dtype)


def corrected(factor: Array, before: Array, after: Array, /, *, number: int) -> Array:
    r"""Return C' with C' C'^T = C C^T + D, where D estimates the change of A^T A from rows of A, `before` and `after`.

    D = (`number` / n) (after^T after - before^T before): of n rows (n, columns) drawn at random from `number`, it is
    unbiased, with an error in proportion to the change. O(n columns^2 + columns^3).
    """
    xp = array_namespace(factor, before, after)
    change = after - before
    half = xp.matrix_transpose(change) @ (before + change / 2) * (number / before.shape[0])
    return _root(factor @ xp.matrix_transpose(factor) + half + xp.matrix_transpose(half), factor.dtype)


def _whole(products: list[Array]) -> Array:
    """Return the symmetric matrix of which `products` are bands of rows, each from the diagonal on."""
    xp = array_namespace(products[0])
    columns = products[0].shape[1]
    bands = [
        xp.concat(
            [xp.zeros((band.shape[0], columns - band.shape[1]), dtype=band.dtype, device=device(band)), band], axis=1
        )
        for band in products
    ]
    upper = xp.triu(xp.concat(bands, axis=0))
    return upper + xp.matrix_transpose(xp.triu(upper, k=1))


def _shifted_back(gram: Array, total: Array, shift: Array, number: int) -> Array:
    """Return the Gram matrix of rows, for that of the rows from which `shift` was subtracted; `total` is their sum."""
    xp = array_namespace(gram)
    wide = xp.astype(shift, gram.dtype)
    cross = total[:, None] * wide[None, :]
    return gram + cross + xp.matrix_transpose(cross) + number * (wide[:, None] * wide[None, :])


def _root(gram: Array, dtype: Any) -> Array:
    """Return V sqrt(D) of the eigenvalues of `gram`, of which rounding makes none negative; NaN if it is not finite."""
    xp = array_namespace(gram)
    finite = xp.all(xp.isfinite(gram))  # solvers raise on others
    values, vectors = xp.linalg.eigh(xp.where(finite, gram, xp.zeros_like(gram)))
    roots = xp.sqrt(xp.where(values > 0, values, xp.zeros_like(values)))
    made = xp.astype(vectors * roots[None, :], dtype, copy=False)
    return xp.where(finite, made, xp.full_like(made, xp.nan))
