"""Softmax sums of rows of logits, in one pass over the vocabulary."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ._array import (
    Array,
    array_namespace,
    constant,
    device,
    exponential_sums,
    is_accelerator,
    is_traced,
    to_numpy,
    widen,
)
from .head import HeadLogits
from .logits import Logits
from .rows import block_items, check_vocabulary

_ROWS = 2048  # rows that are walked together: beyond, a block of the head's weight is read often enough
_COLUMNS = 256  # a block with fewer would spend its time on starting matrix products
_CACHE_NUMBERS = 2**19  # of a block on a CPU, so that it is reduced before it leaves the cache
_OF_ONE_LOGIT = (0.0, 1.0, 0.0, 0.0)  # the sums of a row whose only logit is 0, for rows that do not count


class RowSums(NamedTuple):
    """Of each row: the highest logit, and over the vocabulary of what lies below it, e = exp(logit - top)."""

    top: Array
    total: Array  # sum of e
    moment: Array  # sum of e (logit - top)
    target: Array  # the target's logit, NaN for one outside the vocabulary; 0 where there are no targets

    @property
    def loss(self) -> Array:
        """Cross-entropy, in nats."""
        return self.top + array_namespace(self.top).log(self.total) - self.target

    @property
    def entropy(self) -> Array:
        """Entropy of the softmax, in nats."""
        return array_namespace(self.top).log(self.total) - self.moment / self.total


def row_sums(logits: Logits, targets: Array | None, /, *, moments: bool, block_bytes: int) -> RowSums:
    """Return the sums of each row (batch, time), with running sums that cannot overflow.

    Parameters
    ----------
    logits
        Of a head of half floats, they are computed in its precision where the device multiplies it, as by the model
        itself; exponentials and sums are at least float32.
    targets
        (batch, time) integers, or None.
    moments
        Whether `moment` is computed; else it is 0.
    block_bytes
        Extra memory that a block of logits may take.

    Returns
    -------
    RowSums
        Of arrays (batch, time). Rows outside the mask may hold anything that is finite.

    Notes
    -----
    One matrix product and one exponential for each number. Through a head, rows outside the mask are left out where
    their number can be known without waiting for a device.
    """
    xp = array_namespace(logits.like)
    batch, time, vocab = logits.shape
    check_vocabulary(vocab)
    if not isinstance(logits, HeadLogits):
        sums = _walk(logits, targets, moments=moments, block_bytes=block_bytes)
    else:
        place = _counted(logits.mask)
        flat = logits.flat(None if place is None else constant(place, like=logits.like))
        if targets is not None:
            targets = xp.reshape(targets, (1, batch * time))
            targets = targets if place is None else xp.take(targets, constant(place, like=targets), axis=1)
        parts = [
            _walk(part, None if targets is None else targets[:, rows], moments=moments, block_bytes=block_bytes)
            for rows, part in _row_groups(flat)
        ]
        columns = zip(map(list, zip(*parts, strict=True)), _OF_ONE_LOGIT, strict=True)
        sums = RowSums(*(_spread(column, place, (batch, time), fill=fill) for column, fill in columns))
    return sums


def _walk(logits: Logits, targets: Array | None, *, moments: bool, block_bytes: int) -> RowSums:
    """Reduce the vocabulary block by block."""
    xp = array_namespace(logits.like)
    sums: RowSums | None = None
    for start, block, owned in _blocks(logits, block_bytes):
        highest = widen(xp.max(block, axis=2))
        target = xp.zeros_like(highest) if targets is None else widen(_target_in(block, targets - start))
        top = highest if sums is None else xp.maximum(sums.top, highest)
        total, moment = exponential_sums(block, top, moments=moments, overwrite=owned)
        if sums is not None:
            # as low as that is 0 in any case, and lower times `total` would be infinite
            lowered = xp.maximum(sums.top - top, xp.full_like(top, -1e30))
            shrunk = xp.exp(lowered)
            total, moment = total + shrunk * sums.total, moment + shrunk * (sums.moment + lowered * sums.total)
            target = target + sums.target
        sums = RowSums(top, total, moment, target)
    assert sums is not None
    if targets is None:
        return sums
    known = (targets >= 0) & (targets < logits.shape[2])
    return sums._replace(target=xp.where(known, sums.target, xp.full_like(sums.target, xp.nan)))


def _blocks(logits: Logits, block_bytes: int) -> Iterator[tuple[int, Array, bool]]:
    """Yield blocks of the vocabulary, each with its first column's index, and whether it may be overwritten."""
    batch, time, _ = logits.shape
    rows = max(batch * time, 1)
    step = block_items(rows, block_bytes)
    if not is_accelerator(logits.like):
        step = min(step, max(_COLUMNS, _CACHE_NUMBERS // rows))
    if isinstance(logits, HeadLogits):
        yield from ((start, block, True) for start, block in logits.products(step))
    else:
        yield from ((start, block, False) for start, block in logits.blocks(block_bytes=8 * rows * step))


def _row_groups(flat: HeadLogits) -> Iterator[tuple[slice, HeadLogits]]:
    """Yield groups of rows of one long sample; at least one."""
    number = flat.shape[1]
    for start in range(0, max(number, 1), _ROWS):
        rows = slice(start, min(start + _ROWS, number))
        yield rows, flat.part(rows)


def _counted(mask: Array | None) -> np.ndarray | None:
    """Return the places of the rows in the mask, of all samples joined; None for all, or where they are not known."""
    if mask is None or is_traced(mask) or is_accelerator(mask):
        return None
    return np.flatnonzero(to_numpy(mask)).astype(np.int32)


def _spread(parts: list[Array], place: np.ndarray | None, shape: tuple[int, int], *, fill: float) -> Array:
    """Return the numbers (1, n) of rows at `place` as an array of `shape`, `fill` elsewhere."""
    xp = array_namespace(parts[0])
    if place is None:
        return xp.reshape(xp.concat(parts, axis=1), shape)
    values = xp.concat([*parts, xp.full((1, 1), fill, dtype=parts[0].dtype, device=device(parts[0]))], axis=1)
    source = np.full(shape[0] * shape[1], place.size, dtype=np.int32)
    source[place] = np.arange(place.size, dtype=np.int32)
    return xp.reshape(xp.take(values, constant(source, like=values), axis=1), shape)


def _target_in(block: Array, index: Array) -> Array:
    """Return the logit at `index` (batch, time) of a block of the vocabulary; 0 where it lies in another block."""
    xp = array_namespace(block)
    batch, time, size = block.shape
    inside = (index >= 0) & (index < size)
    flat = xp.reshape(xp.where(inside, index, xp.zeros_like(index)), (batch * time,))
    flat = xp.arange(batch * time, dtype=flat.dtype, device=device(flat)) * size + flat
    picked = xp.reshape(xp.take(xp.reshape(block, (batch * time * size,)), flat), (batch, time))
    return xp.where(inside, picked, xp.zeros_like(picked))
