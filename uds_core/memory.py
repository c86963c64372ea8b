"""Sketches of chosen samples, and distances to them."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import array_api_extra as xpx
import numpy as np

from . import _options, _random
from ._array import (
    Array,
    accumulation_dtype,
    array_namespace,
    check_device,
    constant,
    device,
    direct_distance_matrix,
    has_direct_distances,
    is_finite,
    is_traced,
    smallest,
    take,
    to_numpy,
)
from ._random import Stream

_BLOCK_ROWS = 1024  # rows of a memory that are widened and compared at a time
_PAIR_NUMBERS = 2**20  # numbers of near pairs that are subtracted at a time
_FINITE_ROWS = 4096  # points whose numbers are checked at a time: a pool may be a whole data set, on disk
POOL_BLOCK = 128  # points that are compared at a time, so that distances are reduced before they leave the cache

Distance: TypeAlias = Literal["mean", "nearest", "softmin"]


class Memory(NamedTuple):
    """A first-in first-out ring of sketches. A value: `push` returns the next one and leaves this one as it is."""

    rows: Array  # (capacity, dim); the first `size` are filled
    size: int  # filled rows
    cursor: int  # the row that is written next

    @classmethod
    def empty(cls, capacity: int, dim: int, *, like: Array) -> "Memory":
        """Return an empty memory of `capacity` rows of `dim` numbers, of the library, dtype and device of `like`."""
        return cls(_no_rows(capacity, dim, like=like), 0, 0)

    @property
    def filled(self) -> Array:
        """The filled rows, (size, dim), in no particular order."""
        return self.rows[: self.size, ...]

    def push(self, rows: Array, /) -> "Memory":
        """Return the memory with `rows` (n, dim) in place of the oldest. O(capacity dim): the ring is copied."""
        _check_rows(rows, self.rows)
        capacity, n = self.rows.shape[0], rows.shape[0]
        start = (self.cursor + max(n - capacity, 0)) % capacity
        rows = rows[max(n - capacity, 0) :, ...]
        before_wrap = min(rows.shape[0], capacity - start)
        ring: Array = xpx.at(self.rows)[start : start + before_wrap, ...].set(rows[:before_wrap, ...], copy=True)
        if before_wrap < rows.shape[0]:
            ring = xpx.at(ring)[: rows.shape[0] - before_wrap, ...].set(rows[before_wrap:, ...])
        return Memory(ring, min(self.size + n, capacity), (self.cursor + n) % capacity)

    def check(self, _template: "Memory", /) -> None:
        """Raise where a restored memory counts rows that it cannot have."""
        capacity = self.rows.shape[0]
        _check_counts(self.size, capacity, sound=0 <= self.cursor < capacity)


class Reservoir(NamedTuple):
    """A uniform sample of all sketches ever pushed: each is kept with the same probability. A value, like `Memory`.

    Item number n falls on a place drawn from (seed, n) alone, so a resumed run keeps what an uninterrupted one keeps.
    Source: Vitter (1985), algorithm R.
    """

    rows: Array  # (capacity, dim); the first `size` are filled
    size: int  # filled rows
    seen: int  # rows ever pushed
    seed: int

    @classmethod
    def empty(cls, capacity: int, dim: int, *, like: Array, seed: int = 0) -> "Reservoir":
        """Return an empty reservoir of `capacity` rows of `dim` numbers, of the library, dtype and device of `like`."""
        _options.seed(seed)
        return cls(_no_rows(capacity, dim, like=like), 0, 0, int(seed))

    @property
    def filled(self) -> Array:
        """The filled rows, (size, dim), in no particular order."""
        return self.rows[: self.size, ...]

    def push(self, rows: Array, /) -> "Reservoir":
        """Return the reservoir after `rows` (n, dim) were offered to it. O((capacity + n) dim)."""
        _check_rows(rows, self.rows)
        xp = array_namespace(rows)
        capacity, n = self.rows.shape[0], rows.shape[0]
        source = np.arange(capacity, dtype=np.int32)
        for i in range(n):
            place = self._place(self.seen + i)
            if place < capacity:
                source[place] = capacity + i
        kept = take(xp.concat([self.rows, rows], axis=0), constant(source, like=rows), axis=0)
        return Reservoir(kept, min(self.size + n, capacity), self.seen + n, self.seed)

    def check(self, template: "Reservoir", /) -> None:
        """Raise where a restored reservoir counts rows that it cannot have, or was filled from another seed."""
        _check_counts(self.size, self.rows.shape[0], sound=self.size == min(self.seen, self.rows.shape[0]))
        if self.seed != template.seed:
            msg = f"the saved reservoir was filled with `seed`={self.seed}, this policy has {template.seed}"
            raise ValueError(msg)

    def _place(self, number: int) -> int:
        if number < self.rows.shape[0]:
            return number
        return int(_random.generator(self.seed, Stream.RESERVOIR, number).integers(number + 1))


def pushed(memory: Any, points: Array, indices: Array, /) -> Any:
    """Return `memory` after the `points` (n, dim) at `indices` (k,), in order; reads only those that a ring keeps."""
    if isinstance(memory, Memory):
        capacity = memory.rows.shape[0]
        passed = max(indices.shape[0] - capacity, 0)
        memory, indices = memory._replace(cursor=(memory.cursor + passed) % capacity), indices[passed:]
    return memory.push(take(points, indices))


def finite_points(points: Array, /) -> Array:
    """Return which of `points` (n, dim) are finite, (n,), in blocks: a pool may be larger than the memory."""
    xp = array_namespace(points)
    n = points.shape[0]
    if n <= _FINITE_ROWS:
        return xp.all(is_finite(points), axis=1)
    blocks = (points[start : min(start + _FINITE_ROWS, n), ...] for start in range(0, n, _FINITE_ROWS))
    return xp.concat([xp.all(is_finite(block), axis=1) for block in blocks])


def diversity(
    sketches: Array,
    memory: Memory | Reservoir | Array,
    /,
    *,
    distance: Distance = "mean",
    neighbours: int = 8,
    temperature: float = 0.1,
) -> Array:
    r"""Return the distance of each sketch to the memory's rows; 0 while the memory is empty.

    .. math:: D_i = \frac1m \sum_{j=1}^m \|z_i - q_j\|_2

    Parameters
    ----------
    sketches
        (batch, dim).
    memory
        A `Memory` or `Reservoir`, or an array (m, dim) whose rows all count.
    distance
        ``"mean"``: over all rows. ``"nearest"``: over the `neighbours` nearest. ``"softmin"``: a mean with weights
        exp(-d_j / (temperature x mean distance)): between the two, without a jump when a neighbour changes.
    neighbours
        How many rows ``"nearest"`` averages; all, where there are fewer.
    temperature
        Of ``"softmin"``, in units of each sketch's own mean distance, so that it does not depend on the logits' scale.

    Returns
    -------
    Array
        (batch,), in the dtype of `sketches`. Not finite for a sketch that is not.

    Raises
    ------
    ValueError
        Where sizes, devices or options do not fit.

    Notes
    -----
    O(batch m dim), matrix products, in blocks of samples and of rows.
    """
    _options.one_of("distance", distance, get_args(Distance))
    _options.whole("neighbours", neighbours)
    _options.number("temperature", temperature, "positive and finite", fits=lambda tau: 0 < tau < float("inf"))
    rows = memory.filled if isinstance(memory, (Memory, Reservoir)) else memory
    xp = array_namespace(sketches, rows)
    parts: list[Array] = [xp.zeros((0,), dtype=sketches.dtype, device=device(sketches))]
    for apart in distance_blocks(sketches, rows):
        if apart.shape[1] == 0:
            parts.append(xp.zeros(apart.shape[:1], dtype=sketches.dtype, device=device(sketches)))
            continue
        counted = smallest(apart, min(neighbours, apart.shape[1])) if distance == "nearest" else apart
        mean = xp.mean(counted, axis=1)
        if distance == "softmin":
            mean = _soft_minimum(apart, temperature * mean)
        parts.append(xp.astype(mean, sketches.dtype, copy=False))
    return xp.concat(parts)


def distances(points: Array, rows: Array, /) -> Array:
    """Return the Euclidean distances (n, m) of `points` (n, dim) to `rows` (m, dim), in the widest float.

    The rows' mean is subtracted from both sides first: distances do not change by a shift, and without it the matrix
    product loses all digits on clusters far from the origin. It still does on pairs that are near to each other and far
    from that mean: those are taken directly; all are, where the device does that in one kernel, so that the host waits
    for nothing. O(n m dim): a matrix product, and dim numbers for each near pair.
    """
    parts = list(distance_blocks(points, rows))
    xp = array_namespace(points, rows)
    nothing = xp.zeros((0, rows.shape[0]), dtype=accumulation_dtype(points), device=device(points))
    return xp.concat([nothing, *parts], axis=0)


def distance_blocks(points: Array, rows: Array, /) -> Iterator[Array]:
    """Yield `distances` of `POOL_BLOCK` points at a time: (size, m). Those of a block depend on no other block."""
    xp = array_namespace(points, rows)
    check_device("rows", rows, like=points, like_name="points")
    if rows.ndim != 2 or points.ndim != 2 or rows.shape[1] != points.shape[1]:
        msg = f"`points` (n, dim) and `rows` (m, dim) do not fit: {tuple(points.shape)} and {tuple(rows.shape)}"
        raise ValueError(msg)
    wide = accumulation_dtype(points)
    groups = list(_row_blocks(rows))
    if groups and has_direct_distances(points):
        for start in range(0, points.shape[0], POOL_BLOCK):
            some = xp.astype(points[start : min(start + POOL_BLOCK, points.shape[0]), ...], wide, copy=False)
            others = (xp.astype(block, wide, copy=False) for block in groups)
            yield xp.concat([direct_distance_matrix(some, block) for block in others], axis=1)
        return
    centre = sum(xp.sum(block, axis=0, dtype=wide) for block in groups) / max(rows.shape[0], 1)
    once = [_centred(block, centre, wide) for block in groups] if len(groups) <= 1 else None
    for start in range(0, points.shape[0], POOL_BLOCK):
        some = points[start : min(start + POOL_BLOCK, points.shape[0]), ...]
        here = _centred(some, centre, wide)
        parts: list[Array] = [xp.zeros((some.shape[0], 0), dtype=wide, device=device(points))]
        for i, block in enumerate(groups):
            there = _centred(block, centre, wide) if once is None else once[i]
            parts.append(_near_directly(*_by_product(here, there), some, block))
        yield parts[1] if len(parts) == 2 else xp.concat(parts, axis=1)


def pool_part(number: int, /, *, rank: int, size: int) -> slice:
    """Return the candidates of a pool of `number` that process `rank` of `size` compares: whole blocks of 128.

    So that distances are bit for bit those that one process finds, which compares block by block. The parts of all
    ranks, in order, are the pool; with fewer blocks than processes some are empty.
    """
    blocks = -(-number // POOL_BLOCK)
    start, stop = (min(number, place * blocks // size * POOL_BLOCK) for place in (rank, rank + 1))
    return slice(start, stop)


def direct_distances(points: Array, rows: Array, /) -> Array:
    """Return the Euclidean distance of each of `points` (n, dim) to its own of `rows` (n, dim), or to one (dim,): (n,).

    Exact zero between equals.
    """
    xp = array_namespace(points, rows)
    apart = points - rows
    return xp.sqrt(xp.sum(apart * apart, axis=1))


def _centred(points: Array, centre: Array, wide: Any) -> tuple[Array, Array]:
    """Return `points` less `centre`, and their squared lengths (n,), in the dtype `wide`."""
    xp = array_namespace(points)
    centred = xp.astype(points, wide, copy=False) - centre
    return centred, xp.sum(centred * centred, axis=1)


def _by_product(here: tuple[Array, Array], there: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the distances (n, m) of centred points, and where too few digits of them are left."""
    (points, lengths), (rows, others) = here, there
    xp = array_namespace(points)
    terms = lengths[:, None] + others[None, :]
    squares = terms - 2.0 * (points @ xp.matrix_transpose(rows))
    # rounding may leave a small negative square; NaN stays NaN
    apart = xp.sqrt(xp.where(squares < 0, xp.zeros_like(squares), squares))
    # below this fraction of its terms, less than half of a square's digits are left
    return apart, squares < float(xp.finfo(points.dtype).eps) ** 0.5 * terms


def _soft_minimum(apart: Array, temperature: Array) -> Array:
    xp = array_namespace(apart)
    # all rows at distance 0: any temperature will do
    temperature = xp.where(temperature > 0, temperature, xp.ones_like(temperature))[:, None]
    weights = xp.exp((xp.min(apart, axis=1, keepdims=True) - apart) / temperature)
    return xp.sum(weights * apart, axis=1) / xp.sum(weights, axis=1)


def _near_directly(apart: Array, near: Array, points: Array, rows: Array) -> Array:
    """Return distances `apart` (n, m), computed again without a product where `near` (n, m) is true."""
    xp = array_namespace(apart)
    if is_traced(apart):  # how many are near is not known there
        return apart
    at = np.flatnonzero(to_numpy(near))
    if at.size == 0:
        return apart
    numbers: list[Array] = [xp.reshape(apart, (-1,))]
    pairs = max(1, _PAIR_NUMBERS // rows.shape[1])
    for start in range(0, at.size, pairs):
        i, j = np.divmod(at[start : start + pairs].astype(np.int32), rows.shape[0])
        left, right = (
            xp.astype(take(side, constant(index, like=side), axis=0), apart.dtype, copy=False)
            for side, index in ((points, i), (rows, j))
        )
        numbers.append(direct_distances(left, right))
    source = np.arange(near.shape[0] * near.shape[1], dtype=np.int32)
    source[at] = source.size + np.arange(at.size)
    return xp.reshape(take(xp.concat(numbers), constant(source, like=apart), axis=0), apart.shape)


def _row_blocks(rows: Array) -> Iterator[Array]:
    for start in range(0, rows.shape[0], _BLOCK_ROWS):
        yield rows[start : min(start + _BLOCK_ROWS, rows.shape[0]), ...]


def _no_rows(capacity: int, dim: int, *, like: Array) -> Array:
    _options.whole("capacity", capacity)
    _options.whole("dim", dim)
    return array_namespace(like).zeros((capacity, dim), dtype=like.dtype, device=device(like))


def _check_rows(rows: Array, memory: Array) -> None:
    array_namespace(rows, memory)
    if rows.ndim != 2 or rows.shape[1] != memory.shape[1]:
        msg = f"`rows` must have shape (n, {memory.shape[1]}) to fit the memory, got {tuple(rows.shape)}"
        raise ValueError(msg)


def _check_counts(size: int, capacity: int, *, sound: bool) -> None:
    if not (0 <= size <= capacity and sound):
        msg = f"the saved memory counts {size} rows of {capacity}, which cannot be: the file is damaged"
        raise ValueError(msg)
