"""Rows that are shifted by their positions and summed: the time side of `ShiftedSketch`."""

from ._array import Array, array_namespace, device
from .rows import positions

__all__ = ["shifted_sum"]

_BLOCK = 128  # rows shifted at once: more would copy more zeros


def shifted_sum(rows: Array, /, *, mask: Array | None = None) -> Array:
    """Sum over the rows of (batch, time, dim), each shifted cyclically by its position in its sample: (batch, dim).

    `mask`: (batch, time), true for scored rows; all others must be zero. O(batch time dim), all additions.
    """
    xp = array_namespace(rows)
    batch, time, dim = rows.shape
    starts = range(0, time, _BLOCK)
    blocks = (_block_sum(rows[:, start : min(start + _BLOCK, time), :]) for start in starts)
    turned = (xp.roll(block, start, axis=1) for start, block in zip(starts, blocks, strict=True))
    summed = sum(turned, start=xp.zeros((batch, dim), dtype=rows.dtype, device=device(rows)))
    return summed if mask is None or not time else _turned_back(summed, mask)


def _block_sum(rows: Array) -> Array:
    xp = array_namespace(rows)
    batch, time, dim = rows.shape
    zeros = xp.zeros((batch, time, time), dtype=rows.dtype, device=device(rows))
    # read with a line length that is one too short, row t starts t places further right
    flat = xp.reshape(xp.concat([rows, zeros], axis=2), (batch, time * (dim + time)))[:, : time * (dim + time - 1)]
    summed = xp.sum(xp.reshape(flat, (batch, time, dim + time - 1)), axis=1)
    turns = -(-(dim + time - 1) // dim)
    zeros = xp.zeros((batch, turns * dim - (dim + time - 1)), dtype=rows.dtype, device=device(rows))
    return xp.sum(xp.reshape(xp.concat([summed, zeros], axis=1), (batch, turns, dim)), axis=1)


def _turned_back(summed: Array, mask: Array) -> Array:
    """From shifts counted from the batch's first row to shifts counted from each sample's first scored row."""
    xp = array_namespace(summed, mask)
    batch, dim = summed.shape
    first = mask.shape[1] - 1 - positions(mask)[:, -1:]
    at = (xp.arange(dim, dtype=xp.int32, device=device(summed))[None, :] + first) % dim
    line = xp.arange(batch, dtype=xp.int32, device=device(summed))[:, None] * dim
    flat = xp.take(xp.reshape(summed, (batch * dim,)), xp.reshape(line + at, (batch * dim,)))
    return xp.reshape(flat, (batch, dim))
