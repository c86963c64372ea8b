"""Softmax sums of rows of logits, in one pass over the vocabulary."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ._array import (
    Array,
    array_namespace,
    constant,
    device,
    exponential_sums,
    is_accelerator,
    is_finite,
    is_traced,
    take,
    to_numpy,
    widen,
)
from .head_logits import HeadLogits
from .logits import Logits
from .rows import block_items, block_starts, check_vocabulary

_ROWS = 2048  # rows that are walked together: beyond, a block of the head's weight is read often enough
_COLUMNS = 256  # a block with fewer would spend its time on starting matrix products
_CACHE_NUMBERS = 2**20  # of a block on a CPU, so that it is reduced before it leaves the cache
_NEAR = 40.0  # logits of the first block whose exponentials, and those of all that are not far off, are in range
_OF_ONE_LOGIT = (0.0, 1.0, 0.0, 0.0)  # the sums of a row whose only logit is 0, for rows that do not count


class RowSums(NamedTuple):
    """Of each row: sums over the vocabulary of e = exp(logit - shift)."""

    shift: Array
    total: Array  # sum of e
    moment: Array  # sum of e (logit - shift)
    target: Array  # the target's logit, NaN for one outside the vocabulary; 0 where there are no targets

    @property
    def loss(self) -> Array:
        """Cross-entropy, in nats."""
        xp = array_namespace(self.total)
        loss = self.shift + xp.log(self.total) - self.target
        return xp.where(loss < 0, xp.zeros_like(loss), loss)  # by rounding; NaN stays NaN

    @property
    def entropy(self) -> Array:
        """Entropy of the softmax, in nats."""
        return array_namespace(self.total).log(self.total) - self.moment / self.total


def row_sums(logits: Logits, targets: Array | None, /, *, moments: bool, block_bytes: int) -> RowSums:
    """Return the sums of each row (batch, time).

    Parameters
    ----------
    logits
        Of a head of half floats, they are computed in its precision where the device multiplies it, as by the model
        itself; sums are at least float32.
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
        return _walk(logits, targets, moments=moments, block_bytes=block_bytes)
    place = _counted(logits.mask)
    flat = logits.flat(None if place is None else constant(place, like=logits.like))
    if targets is not None:
        targets = xp.reshape(targets, (1, batch * time))
        targets = targets if place is None else take(targets, constant(place, like=targets), axis=1)
    parts: list[RowSums] = []
    for rows, part in _row_groups(flat):
        sums = _anchored(part, moments=moments, block_bytes=block_bytes)
        if sums is None:
            sums = _walk(part, None, moments=moments, block_bytes=block_bytes)
        if targets is not None:
            known = known_targets(targets[:, rows], vocab)
            logit = part.at(xp.where(known, targets[:, rows], xp.zeros_like(targets[:, rows])))
            sums = sums._replace(target=xp.where(known, logit, xp.full_like(logit, xp.nan)))
        parts.append(sums)
    columns = zip(map(list, zip(*parts, strict=True)), _OF_ONE_LOGIT, strict=True)
    return RowSums(*(_spread(column, place, (batch, time), fill=fill) for column, fill in columns))


def _anchored(logits: HeadLogits, *, moments: bool, block_bytes: int) -> RowSums | None:
    """Reduce the vocabulary with a shift that the first block decides; None where some sums leave the range of floats.

    Without a look for the highest logit in each block. Only where values can be read without waiting for a device.
    """
    if is_traced(logits.like) or is_accelerator(logits.like):
        return None
    xp = array_namespace(logits.like)
    total: Any = 0.0
    moment: Any = 0.0
    top: Any = None
    shift: Any = None
    # of half floats without moments two short passes are left, beside which the start of each block counts
    short = not moments and logits.hidden.dtype != logits.dtype
    for _, block, owned in logit_blocks(logits, block_bytes, numbers=(4 if short else 1) * _CACHE_NUMBERS):
        if top is None:
            top = widen(xp.max(block, axis=2))
            shift = None if bool(xp.all(~(xp.abs(top) > _NEAR))) else top
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is computed again
            here = exponential_sums(block, shift, moments=moments, overwrite=owned)
            total, moment = total + here[0], moment + here[1]
    if not bool(xp.all(xp.isnan(top) | is_finite(total))):
        return None
    nothing = xp.zeros_like(total)
    return RowSums(nothing if shift is None else shift, total, moment if moments else nothing, nothing)


def _walk(logits: Logits, targets: Array | None, *, moments: bool, block_bytes: int) -> RowSums:
    """Reduce the vocabulary block by block, with running sums that cannot overflow."""
    xp = array_namespace(logits.like)
    sums: RowSums | None = None
    for start, block, owned in logit_blocks(logits, block_bytes):
        highest = widen(xp.max(block, axis=2))
        nothing = xp.zeros_like(highest)
        target = nothing if targets is None else widen(_target_in(block, targets - start))
        top = highest if sums is None else xp.maximum(sums.shift, highest)
        total, moment = exponential_sums(block, top, moments=moments, overwrite=owned)
        if sums is not None:
            # as low as that is 0 in any case, and lower times `total` would be infinite
            lowered = xp.maximum(sums.shift - top, xp.full_like(top, -1e30))
            shrunk = xp.exp(lowered)
            moment = moment + shrunk * (sums.moment + lowered * sums.total) if moments else nothing
            total, target = total + shrunk * sums.total, target + sums.target
        sums = RowSums(top, total, moment if moments else nothing, target)
    assert sums is not None
    if targets is None:
        return sums
    return sums._replace(
        target=xp.where(known_targets(targets, logits.shape[2]), sums.target, xp.full_like(sums.target, xp.nan))
    )


def known_targets(targets: Array, vocab: int, /) -> Array:
    """Return which targets are in the vocabulary."""
    return (targets >= 0) & (targets < vocab)


def logit_blocks(
    logits: Logits, block_bytes: int, /, *, numbers: int = _CACHE_NUMBERS
) -> Iterator[tuple[int, Array, bool]]:
    """Yield blocks of the vocabulary, each with its first column's index, and whether it may be overwritten.

    `numbers`: about as many are in a block on a CPU.
    """
    batch, time, _ = logits.shape
    rows = max(batch * time, 1)
    step = block_items(rows, block_bytes)
    if not is_accelerator(logits.like):
        step = min(step, max(_COLUMNS, numbers // rows))
    if isinstance(logits, HeadLogits):
        yield from ((start, block, True) for start, block in logits.products(step))
    else:
        yield from ((start, block, False) for start, block in logits.blocks(block_bytes=8 * rows * step))


def _row_groups(flat: HeadLogits) -> Iterator[tuple[slice, HeadLogits]]:
    """Yield groups of rows of one long sample; at least one."""
    number = flat.shape[1]
    for start in block_starts(max(number, 1), _ROWS):
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
        return xp.reshape(parts[0] if len(parts) == 1 else xp.concat(parts, axis=1), shape)
    values = xp.concat([*parts, xp.full((1, 1), fill, dtype=parts[0].dtype, device=device(parts[0]))], axis=1)
    source = np.full(shape[0] * shape[1], place.size, dtype=np.int32)
    source[place] = np.arange(place.size, dtype=np.int32)
    return xp.reshape(take(values, constant(source, like=values), axis=1), shape)


def _target_in(block: Array, index: Array) -> Array:
    """Return the logit at `index` (batch, time) of a block of the vocabulary; 0 where it lies in another block."""
    xp = array_namespace(block)
    batch, time, size = block.shape
    inside = (index >= 0) & (index < size)
    flat = xp.reshape(xp.where(inside, index, xp.zeros_like(index)), (batch * time,))
    flat = xp.arange(batch * time, dtype=flat.dtype, device=device(flat)) * size + flat
    picked = xp.reshape(take(xp.reshape(block, (batch * time * size,)), flat), (batch, time))
    return xp.where(inside, picked, xp.zeros_like(picked))
