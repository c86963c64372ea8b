"""Utility: the nuclear norm of each logits matrix, and the Frobenius norm beside it."""

from typing import Any, Literal

from ._array import Array, accumulation_dtype, array_namespace, device
from .logits import Logits, as_logits
from .rows import BLOCK_BYTES

__all__ = ["NuclearMethod", "frobenius_norm", "nuclear_norm"]

NuclearMethod = Literal["auto", "svd", "eigh"]


def nuclear_norm(
    logits: Any,
    /,
    *,
    mask: Array | None = None,
    method: NuclearMethod = "auto",
    block_bytes: int = BLOCK_BYTES,
) -> Array:
    r"""Sum of the singular values of each sample's logits matrix, scored rows only.

    .. math:: \|L\|_* = \sum_k \sigma_k(L), \qquad \|L\|_F \le \|L\|_* \le \sqrt{\operatorname{rank} L}\, \|L\|_F

    Parameters
    ----------
    logits
        Dense (batch, time, vocab), or ``head(hidden)``: then the spectrum is taken of the time x width matrix with the
        same singular values, and the logits are never made.
    mask
        (batch, time), true for the rows that are scored. Default: all.
    method
        ``"svd"``: singular values, exact to rounding. ``"eigh"``: roots of the eigenvalues of the smaller Gram matrix,
        accumulated in float64 where the device has it; singular values below ``sqrt(n eps)`` of the largest are lost
        (of relative size 1e-8 in float64). ``"auto"``: ``"svd"`` for float64 input, ``"eigh"`` otherwise.
    block_bytes
        Extra memory that walking dense logits may take.

    Returns
    -------
    Array
        (batch,), in the dtype computed in (float32 for half floats). NaN for a sample with a non-finite scored row;
        0 for a sample without scored rows.

    Raises
    ------
    TypeError, ValueError
        Where shapes, dtypes, devices or `method` do not fit.

    Notes
    -----
    With n = min(time, width): O(batch time width (width + n)) time on the head route, O(batch time n vocab) on the
    dense one; batch n^2 numbers of memory. Source: UDS, arXiv 2510.16882; the way through the head is this library's.
    """
    if method not in ("auto", "svd", "eigh"):
        msg = f"`method` must be 'auto', 'svd' or 'eigh', got {method!r}"
        raise ValueError(msg)
    logits = as_logits(logits).scored(mask)
    xp = array_namespace(logits.like)
    if method == "auto":
        method = "svd" if logits.dtype == xp.float64 else "eigh"
    total = _by_svd(logits) if method == "svd" else _by_eigh(logits, block_bytes)
    return xp.astype(total, logits.dtype, copy=False)


def frobenius_norm(logits: Any, /, *, mask: Array | None = None, block_bytes: int = BLOCK_BYTES) -> Array:
    r"""Root of the sum of squares of each sample's logits, scored rows only: a lower bound of the nuclear norm.

    .. math:: \|L\|_F = \sqrt{\textstyle\sum_{tv} L_{tv}^2} = \sqrt{\textstyle\sum_k \sigma_k(L)^2}

    Parameters
    ----------
    logits, mask, block_bytes
        As in `nuclear_norm`.

    Returns
    -------
    Array
        (batch,), in the dtype computed in. Not finite for a sample with a non-finite scored row.

    Notes
    -----
    One pass: O(batch time vocab) dense, O(batch time width^2) through a head.
    """
    logits = as_logits(logits).scored(mask)
    xp = array_namespace(logits.like)
    wide = accumulation_dtype(logits.like)
    parts = [logits.compact()] if logits.derives else (block for _, block in logits.blocks(block_bytes=block_bytes))
    squares = sum(xp.sum(part * part, axis=(1, 2), dtype=wide) for part in parts)
    return xp.astype(xp.sqrt(squares), logits.dtype, copy=False)


def _by_svd(logits: Logits) -> Array:
    xp = array_namespace(logits.like)
    compact = logits.compact()
    finite = xp.all(xp.isfinite(compact), axis=(1, 2))
    # one bad sample must not stop the batch: zeros go in, NaN comes out
    compact = xp.where(finite[:, None, None], compact, xp.zeros_like(compact))
    total = xp.sum(xp.linalg.svdvals(compact), axis=1)
    return _nan_unless(finite, total)


def _by_eigh(logits: Logits, block_bytes: int) -> Array:
    xp = array_namespace(logits.like)
    gram = _gram(logits, block_bytes)
    finite = xp.all(xp.isfinite(gram), axis=(1, 2))
    gram = xp.where(finite[:, None, None], gram, xp.zeros_like(gram))
    values = xp.linalg.eigvalsh(gram)
    floor = values[:, -1:] * (gram.shape[1] * xp.finfo(gram.dtype).eps)
    roots = xp.sqrt(xp.where(values > floor, values, xp.zeros_like(values)))
    return _nan_unless(finite, xp.sum(roots, axis=1))


def _gram(logits: Logits, block_bytes: int) -> Array:
    """The smaller Gram matrix of each sample, (batch, n, n), accumulated in the widest float there is."""
    xp = array_namespace(logits.like)
    wide = accumulation_dtype(logits.like)
    if logits.derives:
        compact = xp.astype(logits.compact(), wide, copy=False)
        turned = xp.matrix_transpose(compact)
        return compact @ turned if compact.shape[1] <= compact.shape[2] else turned @ compact
    if logits.shape[2] < logits.shape[1]:
        compact = xp.astype(logits.compact(), wide, copy=False)
        return xp.matrix_transpose(compact) @ compact
    batch, time, _ = logits.shape
    gram = xp.zeros((batch, time, time), dtype=wide, device=device(logits.like))
    for _, block in logits.blocks(block_bytes=block_bytes):
        columns = xp.astype(block, wide, copy=False)
        gram = gram + columns @ xp.matrix_transpose(columns)
    return gram


def _nan_unless(finite: Array, values: Array) -> Array:
    xp = array_namespace(values)
    return xp.where(finite, values, xp.full_like(values, xp.nan))
