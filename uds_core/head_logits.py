"""Logits of a head that are never computed in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ._array import Array, array_namespace, device, multiplies_half, take, wide_dtype, widen
from .rows import (
    BLOCK_BYTES,
    block_items,
    block_starts,
    both_masks,
    check_centre,
    check_mask,
    clean_rows,
    is_row_centre,
)


@dataclass(frozen=True, eq=False)
class HeadLogits:
    """Logits `head(hidden)`, never computed in full; rows outside `mask` (batch, time) are zero."""

    hidden: Array
    head: Any  # a `Head`, which makes these
    mask: Array | None = None
    common: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(batch, time, vocab)."""
        return (self.hidden.shape[0], self.hidden.shape[1], self.head.vocab)

    @property
    def dtype(self) -> Any:
        """The dtype computed in."""
        return array_namespace(self.hidden).result_type(wide_dtype(self.hidden), self.head.dtype)

    @property
    def like(self) -> Array:
        """An array of the same library on the same device."""
        return self.hidden

    @property
    def rows(self) -> Array:
        """The augmented hidden states [hidden 1], less the common row, zero outside the mask."""
        xp = array_namespace(self.hidden)
        rows = xp.astype(widen(self.hidden), self.dtype, copy=False)
        if self.common is not None:
            rows = rows - xp.astype(widen(self.common), self.dtype, copy=False)
        if self.head.bias is not None:
            # the common row of logits holds the bias once, as every row does: less it, none is left
            ones = xp.ones if self.common is None else xp.zeros
            rows = xp.concat([rows, ones((*rows.shape[:2], 1), dtype=self.dtype, device=device(rows))], axis=2)
        return clean_rows(rows, self.mask)

    @property
    def derives(self) -> bool:
        """Whether computing the head's factor costs less than the logits in blocks."""
        batch, time, _ = self.shape
        return self.head.frozen or batch * time * (self.head.width + time) > self.head.width**2

    def blocks(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Array]]:
        """Yield blocks (batch, time, size) of the vocabulary, each with its first column's index."""
        xp = array_namespace(self.hidden)
        rows = self.rows
        for start, block in self.head.blocks(block_items(rows.shape[0] * rows.shape[1], block_bytes)):
            yield start, rows @ xp.matrix_transpose(xp.astype(block, self.dtype, copy=False))

    def products(self, columns: int, /) -> Iterator[tuple[int, Array]]:
        """Yield blocks (batch, time, columns) of the logits, each with its first column's index, to be overwritten.

        In the model's own precision: half floats are multiplied as such where the device does that, and a product is
        rounded to half after its sum in float32. Rows outside the mask hold anything that is finite.
        """
        xp, head = array_namespace(self.hidden), self.head
        if self.common is not None or head.has_offset:
            yield from self.blocks(block_bytes=8 * self.shape[0] * self.shape[1] * columns)
            return
        half = self._multiplied_in_half
        hidden = clean_rows(self.hidden if half else xp.astype(widen(self.hidden), self.dtype, copy=False), self.mask)
        for start in block_starts(head.vocab, columns):
            here = slice(start, min(start + columns, head.vocab))
            weight = head.weight[here, ...]
            weight = weight if half else xp.astype(widen(weight), self.dtype, copy=False)
            block = hidden @ xp.matrix_transpose(weight)
            if head.bias is not None:
                block = widen(block) + xp.astype(head.bias[here], self.dtype, copy=False)
            yield start, block if head.scale == 1.0 else widen(block) * head.scale

    def at(self, token: Array, /) -> Array:
        """Return each row's logit of its `token` (batch, time), rounded as in `products`."""
        xp = array_namespace(self.hidden)
        some = self.head.of_tokens(xp.reshape(token, (-1,)))
        rows = self.rows
        logit = xp.sum(
            rows * xp.astype(xp.reshape(some.rows(0, some.vocab), rows.shape), self.dtype, copy=False), axis=2
        )
        rounded = self._multiplied_in_half and some.bias is None and some.scale == 1.0
        return xp.astype(xp.astype(logit, self.hidden.dtype), self.dtype) if rounded else logit

    def of_tokens(self, token: Array, /) -> HeadLogits:
        """Return the logits of some tokens (n,) of the vocabulary alone."""
        return replace(self, head=self.head.of_tokens(token))

    @property
    def _multiplied_in_half(self) -> bool:
        return self.hidden.dtype == self.head.weight.dtype != self.dtype and multiplies_half(self.hidden)

    def compact(self) -> Array:
        """Return (batch, time, columns) with the same singular values, and the same products of rows."""
        return self.rows @ array_namespace(self.hidden).astype(self.head.factor, self.dtype, copy=False)

    def projection(self, sketch: Any, /) -> Array:
        """Return `sketch.vocabulary` along the vocabulary: (batch, time, features)."""
        side = self.head.projection(sketch)
        return self.rows @ array_namespace(self.hidden).astype(side, self.dtype, copy=False)

    def centred(self, centre: str | Array) -> HeadLogits:
        """Subtract `centre`: nothing ("none"), each "row"'s mean over the vocabulary, or the logits of a hidden row."""
        if isinstance(centre, str):
            return replace(self, head=self.head.centred()) if is_row_centre(centre) else self
        return replace(self, common=check_centre(centre, self.head.width, like=self.hidden))

    def sampled(self, number: int, /, *, seed: int = 0) -> HeadLogits:
        """Return the logits of `number` random columns of the vocabulary, times sqrt(vocab / number)."""
        return replace(self, head=self.head.sampled(number, seed=seed))

    def scored(self, mask: Array | None) -> HeadLogits:
        """Return the logits with zero rows outside `mask`."""
        return replace(self, mask=both_masks(self.mask, check_mask(mask, self.shape[:2], like=self.like)))

    def flat(self, place: Array | None, /) -> HeadLogits:
        """Return the rows at `place` (n,) of all samples joined, or all, as one sample (1, n, vocab)."""
        xp = array_namespace(self.hidden)
        batch, time, width = self.hidden.shape
        hidden = xp.reshape(self.hidden, (1, batch * time, width))
        mask = None if self.mask is None else xp.reshape(self.mask, (1, batch * time))
        if place is None:
            return replace(self, hidden=hidden, mask=mask)
        return replace(self, hidden=take(hidden, place, axis=1), mask=None)

    def part(self, rows: slice, /) -> HeadLogits:
        """Return some rows of each sample."""
        mask = None if self.mask is None else self.mask[:, rows]
        return replace(self, hidden=self.hidden[:, rows, :], mask=mask)

    def samples(self, start: int, stop: int, /) -> HeadLogits:
        """Return samples `start` to `stop` alone."""
        mask = None if self.mask is None else self.mask[start:stop, ...]
        return replace(self, hidden=self.hidden[start:stop, ...], mask=mask)
