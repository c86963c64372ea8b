"""What was chosen lately, and how far a candidate is from it."""

from typing import NamedTuple

import array_api_extra as xpx

from ._array import Array, accumulation_dtype, array_namespace, check_device, device

__all__ = ["Memory", "diversity"]


class Memory(NamedTuple):
    """A first-in first-out ring of sketches. A value: `push` returns the next one and leaves this one as it is."""

    rows: Array  # (capacity, dim); the first `size` are filled
    size: int  # filled rows
    cursor: int  # the row that is written next

    @classmethod
    def empty(cls, capacity: int, dim: int, *, like: Array) -> "Memory":
        """A memory of `capacity` rows of `dim` numbers, none filled, of the library, dtype and device of `like`."""
        if capacity < 1:
            msg = f"`capacity` must be at least 1, got {capacity}"
            raise ValueError(msg)
        xp = array_namespace(like)
        return cls(xp.zeros((capacity, dim), dtype=like.dtype, device=device(like)), 0, 0)

    @property
    def filled(self) -> Array:
        """The filled rows, (size, dim), in no particular order."""
        return self.rows[: self.size, ...]

    def push(self, rows: Array, /) -> "Memory":
        """The memory after `rows` (n, dim) came in, the oldest giving way. O(capacity dim): the ring is copied."""
        capacity, dim = self.rows.shape
        array_namespace(rows, self.rows)
        if rows.ndim != 2 or rows.shape[1] != dim:
            msg = f"`rows` must have shape (n, {dim}) to fit the memory, got {tuple(rows.shape)}"
            raise ValueError(msg)
        n = rows.shape[0]
        start = (self.cursor + max(n - capacity, 0)) % capacity
        rows = rows[max(n - capacity, 0) :, ...]
        before_wrap = min(rows.shape[0], capacity - start)
        ring: Array = xpx.at(self.rows)[start : start + before_wrap, ...].set(rows[:before_wrap, ...], copy=True)
        if before_wrap < rows.shape[0]:
            ring: Array = xpx.at(ring)[: rows.shape[0] - before_wrap, ...].set(rows[before_wrap:, ...])
        return Memory(ring, min(self.size + n, capacity), (self.cursor + n) % capacity)


def diversity(sketches: Array, memory: Memory | Array, /) -> Array:
    r"""Mean distance of each sketch to the memory's rows; 0 while it is empty.

    .. math:: D_i = \frac1m \sum_{j=1}^m \|z_i - q_j\|_2

    Parameters
    ----------
    sketches
        (batch, dim).
    memory
        A `Memory`, or an array (m, dim) whose rows all count.

    Returns
    -------
    Array
        (batch,), in the dtype of `sketches`. Not finite for a sketch that is not.

    Raises
    ------
    ValueError
        Where sizes or devices differ.

    Notes
    -----
    O(batch m dim), one matrix product. The memory's mean is taken out of both sides first: distances do not change by a
    shift, and without it the product loses all digits on clusters far from the origin.
    """
    rows = memory.filled if isinstance(memory, Memory) else memory
    xp = array_namespace(sketches, rows)
    check_device("memory", rows, like=sketches, like_name="sketches")
    if rows.ndim != 2 or sketches.ndim != 2 or rows.shape[1] != sketches.shape[1]:
        msg = (
            f"`sketches` (batch, dim) and `memory` (rows, dim) do not fit: {tuple(sketches.shape)}, {tuple(rows.shape)}"
        )
        raise ValueError(msg)
    if rows.shape[0] == 0:
        return xp.zeros(sketches.shape[0], dtype=sketches.dtype, device=device(sketches))
    wide = accumulation_dtype(sketches)
    rows, points = xp.astype(rows, wide), xp.astype(sketches, wide)
    centre = xp.mean(rows, axis=0)
    rows, points = rows - centre, points - centre
    squares = xp.sum(points * points, axis=1)[:, None] + xp.sum(rows * rows, axis=1)[None, :]
    squares = squares - 2.0 * (points @ xp.matrix_transpose(rows))
    # rounding may leave a small negative square; NaN stays NaN
    distances = xp.sqrt(xp.where(squares < 0, xp.zeros_like(squares), squares))
    return xp.astype(xp.mean(distances, axis=1), sketches.dtype, copy=False)
