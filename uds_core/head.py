"""The LM head as a value, and logits that are never computed in full."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from . import _options, factors, rows
from ._array import (
    Array,
    accumulation_dtype,
    array_namespace,
    check_device,
    constant,
    device,
    is_traced,
    multiplies_half,
    take,
    wide_dtype,
    widen,
)
from ._random import vocabulary_rows
from .rows import BLOCK_BYTES, block_items, both_masks, check_centre, check_mask, clean_rows, is_row_centre


class Head:
    """The last linear layer of a language model, as a value: logits = scale (hidden weight^T + bias).

    Parameters
    ----------
    weight
        (vocab, width), any floating dtype.
    bias
        (vocab,) or None.
    scale
        Factor on the logits, the bias included (Cohere's ``logit_scale``; one over Granite's ``logits_scaling``).
    frozen
        True: what is derived from the weight (its triangular factor, its side of each sketch) is computed once and
        stored. False: the head serves one call, so that deriving less is cheaper.
    factor_by
        How `factor` is computed: ``"qr"`` keeps small singular values; ``"gram"`` takes half of the time, with the
        relative error in each squared singular value that `factors.by_gram` states, about 1e-7 for usual heads.

    Raises
    ------
    TypeError, ValueError
        Where shapes, dtypes or devices do not fit.

    Notes
    -----
    Immutable: where the weight trains, make a new ``Head`` for each scoring call, or call `moved` while it changes
    little. The factor costs O(vocab width^2) once and keeps width^2 numbers; the weight itself is never copied.
    """

    def __init__(
        self,
        weight: Array,
        bias: Array | None = None,
        scale: float = 1.0,
        *,
        frozen: bool = True,
        factor_by: Literal["qr", "gram"] = "qr",
        _offset: Any = None,
    ) -> None:
        _options.one_of("factor_by", factor_by, ("qr", "gram"))
        self.factor_by: Literal["qr", "gram"] = factor_by
        rows.check_weight(weight, bias)
        self.weight, self.bias, self.scale, self.frozen = weight, bias, float(scale), frozen
        self.dtype = wide_dtype(weight, name="weight")
        self.vocab, self.width = weight.shape
        self._offset = _offset
        self._memo: dict[Hashable, Array] = {}

    def __call__(self, hidden: Array, /) -> HeadLogits:
        """Return the logits of `hidden` (batch, time, width), as a value that is never computed in full."""
        array_namespace(hidden, self.weight)
        check_device("hidden", hidden, like=self.weight, like_name="weight")
        wide_dtype(hidden, name="hidden")
        if hidden.ndim != 3 or hidden.shape[2] != self.width:
            msg = f"`hidden` must have shape (batch, time, {self.width}) to fit `weight`, got {tuple(hidden.shape)}"
            raise ValueError(msg)
        return HeadLogits(hidden, self)

    def __repr__(self) -> str:
        bias = "" if self.bias is None else ", bias"
        return f"Head({self.vocab} x {self.width}{bias}, scale={self.scale:g}, frozen={self.frozen})"

    def moved(self, weight: Array, bias: Array | None = None, /) -> Head:
        """Return the same head with its numbers at another place; what was derived from them stays valid.

        For weights that are in memory for a moment only, as in sharded training: what was derived once from a frozen
        head serves without them. And for weights that have changed little since: what is read block by block, such as
        losses, is then of the new weight, and norms and sketches are of the old one.
        """
        moved = self._with(weight, bias, self._offset)
        made = {key: one.moved(weight, bias) if isinstance(one, Head) else one for key, one in self._memo.items()}
        moved._memo = made
        return moved

    @property
    def columns(self) -> int:
        """Columns of the augmented head: the width, and one more for a bias."""
        return self.width + (self.bias is not None)

    @property
    def prepared(self) -> bool:
        """Whether something that was derived from the weight is stored."""
        return bool(self._memo)

    @property
    def has_offset(self) -> bool:
        """Whether a row is subtracted from each row of the weight."""
        return self._offset is not None

    @property
    def like(self) -> Array:
        """An array of the same library on the same device."""
        return self.weight

    def rows(self, start: int, stop: int, /) -> Array:
        """Return rows `start` to `stop` of the augmented head scale [weight bias], less the offset, widened."""
        return self._augmented(self.weight[start:stop, ...], None if self.bias is None else self.bias[start:stop])

    def of_tokens(self, token: Array, /) -> Head:
        """Return the head of some tokens (n,) of the vocabulary, its rows less the same offset."""
        bias = None if self.bias is None else take(self.bias, token)
        return Head(take(self.weight, token), bias, self.scale, frozen=False, _offset=self._offset)

    def piece(self, start: int, stop: int, /) -> Array:
        """Return columns `start` to `stop` of the transposed augmented head, (columns, n)."""
        return array_namespace(self.weight).matrix_transpose(self.rows(start, stop))

    def strips(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """Yield the transposed augmented head in strips (n, vocab), as long as the vocabulary; at least one."""
        xp = array_namespace(self.weight)
        step = block_items(self.vocab, block_bytes)
        for start in range(0, max(self.columns, 1), step):
            stop = min(start + step, self.columns)
            strip = widen(self.weight[:, start : min(stop, self.width)])
            if stop > self.width:
                strip = xp.concat([strip, xp.astype(self.bias, self.dtype, copy=False)[:, None]], axis=1)
            strip = strip if self.scale == 1.0 else strip * self.scale
            yield xp.matrix_transpose(strip if self._offset is None else strip - self._offset[start:stop])

    def blocks(self, block_rows: int, /) -> Iterator[tuple[int, Array]]:
        """Yield the augmented head in blocks of at most `block_rows` rows, each with its first row's index."""
        for start in rows.block_starts(self.vocab, block_rows):
            yield start, self.rows(start, min(start + block_rows, self.vocab))

    @property
    def factor(self) -> Array:
        """C (columns, columns) with C C^T = A^T A for the augmented head A, so that X C has the spectrum of X A^T."""
        return self._once("factor", self._make_factor)

    def centred(self) -> Head:
        """Return the head less its mean row: its logits have mean zero over the vocabulary in every row."""
        return self._once("centred", self._make_centred) if self.vocab else self

    def sampled(self, number: int, /, *, seed: int = 0) -> Head:
        """Return a head of `number` rows drawn at random without replacement, times sqrt(vocab / number).

        Its Gram matrix A^T A is an unbiased estimate of this head's, and so is L L^T of its logits. All if there are
        no more. O(number width).
        """
        _options.whole("entries", number)
        if number >= self.vocab:
            return self
        index, grown = vocabulary_rows(seed, self.vocab, number), (self.vocab / number) ** 0.5
        drawn = constant(index, like=self.weight)
        bias = None if self.bias is None else take(self.bias, drawn)
        offset = None if self._offset is None else self._offset * grown
        return Head(take(self.weight, drawn), bias, self.scale * grown, frozen=False, _offset=offset)

    def projection(self, sketch: Any, /) -> Array:
        """Return the augmented head's side of a sketch (columns, features): `sketch.vocabulary` of the head."""
        return self._once(sketch, lambda: sketch.vocabulary(self))

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        # arrays made in a JAX trace belong to that trace: call once eagerly to have them stored
        if key in self._memo:
            return self._memo[key]
        made = make()
        if not is_traced(made._offset if isinstance(made, Head) else made):
            self._memo[key] = made
        return made

    def _make_factor(self) -> Array:
        xp = array_namespace(self.weight)
        if not (self.vocab and self.columns):
            return xp.zeros((self.columns, self.columns), dtype=self.dtype, device=device(self.weight))
        blocks = (block for _, block in self.blocks(max(4 * self.columns, 4096)))
        return factors.by_qr(blocks) if self.factor_by == "qr" else factors.by_gram(blocks)

    def _make_centred(self) -> Head:
        xp = array_namespace(self.weight)
        wide = accumulation_dtype(self.weight)  # NumPy adds up one row after the other along this axis
        blocks = self.blocks(block_items(self.columns, BLOCK_BYTES))
        total = sum(xp.sum(block, axis=0, dtype=wide) for _, block in blocks)
        mean = xp.astype(total / self.vocab, self.dtype, copy=False)
        offset = mean if self._offset is None else mean + self._offset
        return self._with(self.weight, self.bias, offset)

    def _with(self, weight: Array, bias: Array | None, offset: Any) -> Head:
        return Head(weight, bias, self.scale, frozen=self.frozen, factor_by=self.factor_by, _offset=offset)

    def _augmented(self, weight: Array, bias: Array | None) -> Array:
        xp = array_namespace(weight)
        rows = widen(weight)
        if bias is not None:
            rows = xp.concat([rows, xp.astype(bias, self.dtype, copy=False)[:, None]], axis=1)
        rows = rows if self.scale == 1.0 else rows * self.scale
        return rows if self._offset is None else rows - self._offset


@dataclass(frozen=True, eq=False)
class HeadLogits:
    """Logits `head(hidden)`, never computed in full; rows outside `mask` (batch, time) are zero."""

    hidden: Array
    head: Head
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
        for start in rows.block_starts(head.vocab, columns):
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
