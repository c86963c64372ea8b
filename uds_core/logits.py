"""A batch of logits matrices: dense, or a `Head` applied to hidden states.

Everything downstream asks for one of three views, each the same for both kinds: `blocks` of the vocabulary, a `compact`
matrix with the same singular values, and a `projection` of the vocabulary axis by a sketch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from . import _options
from ._array import Array, array_namespace, constant, device, take, wide_dtype, widen
from ._random import vocabulary_rows
from .head_logits import HeadLogits
from .rows import (
    BLOCK_BYTES,
    block_items,
    block_starts,
    both_masks,
    check_centre,
    check_mask,
    finite_rows,
    is_row_centre,
    masked_rows,
)


@dataclass(frozen=True, eq=False)
class DenseLogits:
    """Logits that exist: `values` (batch, time, vocab), less `shift`, rows outside `mask` zero."""

    values: Array
    mask: Array | None = None
    shift: Array | None = None
    finite: Array | None = None  # (batch, time, 1), seen once so that no block has to look again; None: all are

    @property
    def shape(self) -> tuple[int, int, int]:
        """(batch, time, vocab)."""
        return tuple(self.values.shape)

    @property
    def dtype(self) -> Any:
        """The dtype computed in."""
        return wide_dtype(self.values)

    @property
    def like(self) -> Array:
        """An array of the same library on the same device."""
        return self.values

    @property
    def derives(self) -> bool:
        """Whether `compact` is cheaper than `blocks`: never, it is the whole matrix."""
        return False

    def blocks(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Array]]:
        """Yield blocks (batch, time, size) of the vocabulary, each with its first column's index."""
        batch, time, vocab = self.shape
        step = block_items(batch * time, block_bytes)
        for start in block_starts(vocab, step):
            yield start, self.piece(start, min(start + step, vocab))

    def compact(self) -> Array:
        """Return the matrices themselves, widened."""
        return self.piece(0, self.shape[2])

    def piece(self, start: int, stop: int, /) -> Array:
        """Return columns `start` to `stop` of the vocabulary, (batch, time, n)."""
        shift = self.shift
        if shift is not None and shift.shape[2] > 1:
            shift = shift[:, :, start:stop]
        return _finished(self.values[:, :, start:stop], shift, self.mask, self.finite)

    def strips(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """Yield the matrices in strips of rows (batch, n, vocab), as long as the vocabulary; at least one."""
        batch, time, vocab = self.shape
        step = block_items(batch * vocab, block_bytes)
        for start in block_starts(max(time, 1), step):
            here = slice(start, min(start + step, time))
            shift = self.shift
            if shift is not None and shift.shape[1] > 1:
                shift = shift[:, here, ...]
            mask, finite = (None if x is None else x[:, here, ...] for x in (self.mask, self.finite))
            yield _finished(self.values[:, here, ...], shift, mask, finite)

    def projection(self, sketch: Any, /) -> Array:
        """Return `sketch.vocabulary` along the vocabulary: (batch, time, features)."""
        return sketch.vocabulary(self)

    def of_tokens(self, token: Array, /) -> DenseLogits:
        """Return the logits of some tokens (n,) of the vocabulary alone."""
        shift = self.shift
        if shift is not None and shift.shape[2] > 1:
            shift = take(shift, token, axis=2)
        return replace(self, values=take(self.values, token, axis=2), shift=shift)

    def at(self, token: Array, /) -> Array:
        """Return each row's logit of its `token` (batch, time), widened."""
        xp = array_namespace(self.values)
        batch, time, vocab = self.shape
        rows = xp.arange(batch * time, dtype=token.dtype, device=device(token)) * vocab + xp.reshape(token, (-1,))
        picked = replace(self, values=_picked(self.values, rows))
        if self.shift is not None and self.shift.shape[2] > 1:
            shift = xp.reshape(take(xp.reshape(self.shift, (-1,)), xp.reshape(token, (-1,))), (batch, time, 1))
            picked = replace(picked, shift=shift)
        return picked.compact()[:, :, 0]

    def centred(self, centre: str | Array) -> DenseLogits:
        """Subtract `centre`: nothing ("none"), each "row"'s mean over the vocabulary, or a row of logits (vocab,)."""
        xp = array_namespace(self.values)
        if isinstance(centre, str):
            if not is_row_centre(centre) or not self.shape[2]:
                return self
            total = sum(xp.sum(block, axis=2, keepdims=True) for _, block in self.blocks())
            shift = total / self.shape[2]
            return replace(self, shift=shift if self.shift is None else self.shift + shift)
        row = widen(check_centre(centre, self.shape[2], like=self.values))
        return replace(self, shift=xp.astype(row, self.dtype, copy=False)[None, None, :])

    def sampled(self, number: int, /, *, seed: int = 0) -> DenseLogits:
        """Return `number` random columns of the vocabulary, times sqrt(vocab / number); all if there are no more."""
        _options.whole("entries", number)
        vocab = self.shape[2]
        if number >= vocab:
            return self
        index, grown = constant(vocabulary_rows(seed, vocab, number), like=self.values), (vocab / number) ** 0.5
        shift = self.shift
        if shift is not None:
            shift = (take(shift, index, axis=2) if shift.shape[2] > 1 else shift) * grown
        return replace(self, values=widen(take(self.values, index, axis=2)) * grown, shift=shift)

    def scored(self, mask: Array | None) -> DenseLogits:
        """Return the logits with zero rows outside `mask`."""
        return replace(self, mask=both_masks(self.mask, check_mask(mask, self.shape[:2], like=self.like)))

    def samples(self, start: int, stop: int, /) -> DenseLogits:
        """Return samples `start` to `stop` alone."""
        mask, finite = (None if x is None else x[start:stop, ...] for x in (self.mask, self.finite))
        shift = self.shift
        if shift is not None and shift.shape[0] == self.shape[0]:
            shift = shift[start:stop, ...]
        return replace(self, values=self.values[start:stop, ...], mask=mask, shift=shift, finite=finite)


Logits: TypeAlias = DenseLogits | HeadLogits


def as_logits(logits: Any, /) -> Logits:
    """Return either kind of logits, from either or from a dense array (batch, time, vocab)."""
    if isinstance(logits, (DenseLogits, HeadLogits)):
        return logits
    wide_dtype(logits, name="logits")
    if logits.ndim != 3:
        msg = f"`logits` must have shape (batch, time, vocab), got {tuple(logits.shape)}"
        raise ValueError(msg)
    return DenseLogits(logits, finite=finite_rows(logits))


def _picked(values: Array, place: Array) -> Array:
    """Return the numbers at `place` of all, one for each row: (batch, time, 1)."""
    xp = array_namespace(values)
    return xp.reshape(take(xp.reshape(values, (-1,)), place), (*values.shape[:2], 1))


def _finished(values: Array, shift: Array | None, mask: Array | None, finite: Array | None) -> Array:
    values = widen(values)
    return masked_rows(values if shift is None else values - shift, mask, finite)
