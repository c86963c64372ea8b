"""A batch of logits matrices: dense, or a `Head` applied to hidden states and never multiplied out.

Everything downstream asks for one of three views, each the same for both kinds: `blocks` of the vocabulary, a `compact`
matrix with the same singular values, and a `projection` of the vocabulary axis by a sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ._array import Array, array_namespace, check_device, device, is_traced, qr_triangle, wide_dtype, widen

__all__ = [
    "BLOCK_BYTES",
    "IGNORE",
    "DenseLogits",
    "Head",
    "HeadLogits",
    "Logits",
    "as_logits",
    "check_mask",
    "positions",
]

IGNORE = -100  # the target of a row that carries no loss
BLOCK_BYTES = 64 * 2**20  # enough for fast matrix products, small beside a model


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
        True: what is derived from the weight (its triangular factor, its side of each sketch) is made once and kept.
        False: the head serves one call, so routes are taken that derive less.

    Raises
    ------
    TypeError, ValueError
        Where shapes, dtypes or devices do not fit.

    Notes
    -----
    Immutable: where the weight trains, make a new ``Head`` for each scoring call. The factor costs O(vocab width^2)
    once and keeps width^2 numbers; the weight itself is never copied.
    """

    def __init__(
        self, weight: Array, bias: Array | None = None, scale: float = 1.0, *, frozen: bool = True, _offset: Any = None
    ) -> None:
        array_namespace(weight) if bias is None else array_namespace(weight, bias)
        if weight.ndim != 2:
            msg = f"`weight` must have shape (vocab, width), got {tuple(weight.shape)}"
            raise ValueError(msg)
        if bias is not None:
            check_device("bias", bias, like=weight, like_name="weight")
            if tuple(bias.shape) != (weight.shape[0],):
                msg = f"`bias` must have shape ({weight.shape[0]},) to fit `weight`, got {tuple(bias.shape)}"
                raise ValueError(msg)
        self.weight, self.bias, self.scale, self.frozen = weight, bias, float(scale), frozen
        self.dtype = wide_dtype(weight)
        self.vocab, self.width = weight.shape
        self._offset = _offset
        self._memo: dict[Hashable, Array] = {}

    def __call__(self, hidden: Array, /) -> HeadLogits:
        """The logits of `hidden` (batch, time, width), as a value that is never multiplied out."""
        array_namespace(hidden, self.weight)
        check_device("hidden", hidden, like=self.weight, like_name="weight")
        wide_dtype(hidden)
        if hidden.ndim != 3 or hidden.shape[2] != self.width:
            msg = f"`hidden` must have shape (batch, time, {self.width}) to fit `weight`, got {tuple(hidden.shape)}"
            raise ValueError(msg)
        return HeadLogits(hidden, self)

    def __repr__(self) -> str:
        bias = "" if self.bias is None else ", bias"
        return f"Head({self.vocab} x {self.width}{bias}, scale={self.scale:g}, frozen={self.frozen})"

    @property
    def columns(self) -> int:
        """Columns of the augmented head: the width, and one more for a bias."""
        return self.width + (self.bias is not None)

    @property
    def like(self) -> Array:
        """An array of the same library on the same device."""
        return self.weight

    def rows(self, start: int, stop: int, /) -> Array:
        """Rows `start` to `stop` of the augmented head scale [weight bias], less the offset, widened."""
        return self._augmented(self.weight[start:stop, ...], None if self.bias is None else self.bias[start:stop])

    def take(self, index: Array, /) -> Array:
        """Columns `index` of the transposed augmented head, (columns, n)."""
        xp = array_namespace(self.weight)
        bias = None if self.bias is None else xp.take(self.bias, index)
        return xp.matrix_transpose(self._augmented(xp.take(self.weight, index, axis=0), bias))

    def strips(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """The transposed augmented head in strips (n, vocab), as long as the vocabulary."""
        xp = array_namespace(self.weight)
        step = _block_items(self.vocab, block_bytes)
        for start in range(0, self.columns, step):
            stop = min(start + step, self.columns)
            strip = widen(self.weight[:, start : min(stop, self.width)])
            if stop > self.width:
                strip = xp.concat([strip, xp.astype(self.bias, self.dtype, copy=False)[:, None]], axis=1)
            strip = strip if self.scale == 1.0 else strip * self.scale
            yield xp.matrix_transpose(strip if self._offset is None else strip - self._offset[start:stop])

    def blocks(self, block_rows: int, /) -> Iterator[tuple[int, Array]]:
        """The augmented head in blocks of at most `block_rows` rows, each with its first row's index."""
        for start in range(0, self.vocab, block_rows):
            yield start, self.rows(start, min(start + block_rows, self.vocab))

    @property
    def factor(self) -> Array:
        """C (columns, columns) with C C^T = A^T A for the augmented head A, so that X C has the spectrum of X A^T.

        C = R^T of a QR decomposition, made in blocks: unlike a root of A^T A it keeps the small singular values.
        """
        return self._once("factor", self._make_factor)

    def centred(self) -> Head:
        """The head whose logits have mean zero over the vocabulary in every row: its mean row taken out of it."""
        return self._once("centred", self._make_centred)

    def projection(self, sketch: Any, /) -> Array:
        """The augmented head's side of a sketch, (columns, features): `sketch.vocabulary` along the vocabulary."""
        return self._once(sketch, lambda: sketch.vocabulary(self))

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        # what JAX makes while it traces belongs to that trace: call once eagerly to have it kept
        if key in self._memo:
            return self._memo[key]
        made = make()
        if not is_traced(made._offset if isinstance(made, Head) else made):
            self._memo[key] = made
        return made

    def _make_factor(self) -> Array:
        xp = array_namespace(self.weight)
        triangle = None
        for _, block in self.blocks(max(4 * self.columns, 4096)):
            triangle = qr_triangle(block if triangle is None else xp.concat([triangle, block], axis=0))
        return xp.matrix_transpose(triangle)

    def _make_centred(self) -> Head:
        xp = array_namespace(self.weight)
        total = sum(xp.sum(block, axis=0) for _, block in self.blocks(_block_items(self.columns, BLOCK_BYTES)))
        offset = total / self.vocab if self._offset is None else total / self.vocab + self._offset
        return Head(self.weight, self.bias, self.scale, frozen=self.frozen, _offset=offset)

    def _augmented(self, weight: Array, bias: Array | None) -> Array:
        xp = array_namespace(weight)
        rows = widen(weight)
        if bias is not None:
            rows = xp.concat([rows, xp.astype(bias, self.dtype, copy=False)[:, None]], axis=1)
        rows = rows if self.scale == 1.0 else rows * self.scale
        return rows if self._offset is None else rows - self._offset


@dataclass(frozen=True, eq=False)
class HeadLogits:
    """Logits that are never made: `head` applied to `hidden` (batch, time, width), rows outside `mask` zero."""

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
        return _zero_outside(rows, self.mask)

    @property
    def derives(self) -> bool:
        """Whether making the head's factor costs less than walking its logits in blocks."""
        batch, time, _ = self.shape
        return self.head.frozen or batch * time * (self.head.width + time) > self.head.width**2

    def blocks(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, Array]]:
        """Blocks (batch, time, size) of the vocabulary, each with its first column's index."""
        xp = array_namespace(self.hidden)
        rows = self.rows
        for start, block in self.head.blocks(_block_items(rows.shape[0] * rows.shape[1], block_bytes)):
            yield start, rows @ xp.matrix_transpose(xp.astype(block, self.dtype, copy=False))

    def compact(self) -> Array:
        """(batch, time, columns) with the same singular values, and the same products of rows."""
        return self.rows @ array_namespace(self.hidden).astype(self.head.factor, self.dtype, copy=False)

    def projection(self, sketch: Any, /) -> Array:
        """`sketch.vocabulary` along the vocabulary: (batch, time, features)."""
        side = self.head.projection(sketch)
        return self.rows @ array_namespace(self.hidden).astype(side, self.dtype, copy=False)

    def centred(self, centre: str | Array) -> HeadLogits:
        """Less what `centre` names: "none", each "row"'s mean over the vocabulary, or the logits of a hidden row."""
        if isinstance(centre, str):
            return replace(self, head=self.head.centred()) if _is_row(centre) else self
        return replace(self, common=_check_centre(centre, self.head.width, like=self.hidden))

    def scored(self, mask: Array | None) -> HeadLogits:
        """With the rows outside `mask` zero."""
        return replace(self, mask=_both(self.mask, check_mask(mask, self.shape[:2], like=self.like)))

    def samples(self, start: int, stop: int, /) -> HeadLogits:
        """Samples `start` to `stop` alone."""
        mask = None if self.mask is None else self.mask[start:stop, ...]
        return replace(self, hidden=self.hidden[start:stop, ...], mask=mask)


@dataclass(frozen=True, eq=False)
class DenseLogits:
    """Logits that exist: `values` (batch, time, vocab), less `shift`, rows outside `mask` zero."""

    values: Array
    mask: Array | None = None
    shift: Array | None = None

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
        """Blocks (batch, time, size) of the vocabulary, each with its first column's index."""
        batch, time, vocab = self.shape
        step = _block_items(batch * time, block_bytes)
        for start in range(0, vocab, step):
            yield start, self._block(start, min(start + step, vocab))

    def compact(self) -> Array:
        """The matrices themselves, widened."""
        return self._block(0, self.shape[2])

    def take(self, index: Array, /) -> Array:
        """Columns `index` of the vocabulary, (batch, time, n)."""
        xp = array_namespace(self.values)
        shift = self.shift
        if shift is not None and shift.shape[2] > 1:
            shift = xp.take(shift, index, axis=2)
        return self._finished(xp.take(self.values, index, axis=2), shift, self.mask)

    def strips(self, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Array]:
        """The matrices in strips of rows (batch, n, vocab), as long as the vocabulary."""
        batch, time, vocab = self.shape
        step = _block_items(batch * vocab, block_bytes)
        for start in range(0, time, step):
            here = slice(start, min(start + step, time))
            shift, mask = self.shift, self.mask
            if shift is not None and shift.shape[1] > 1:
                shift = shift[:, here, ...]
            yield self._finished(self.values[:, here, ...], shift, None if mask is None else mask[:, here])

    def projection(self, sketch: Any, /) -> Array:
        """`sketch.vocabulary` along the vocabulary: (batch, time, features)."""
        return sketch.vocabulary(self)

    def centred(self, centre: str | Array) -> DenseLogits:
        """Less what `centre` names: "none", each "row"'s mean over the vocabulary, or a row of logits (vocab,)."""
        xp = array_namespace(self.values)
        if isinstance(centre, str):
            if not _is_row(centre):
                return self
            total = sum(xp.sum(block, axis=2, keepdims=True) for _, block in self.blocks())
            shift = total / self.shape[2]
            return replace(self, shift=shift if self.shift is None else self.shift + shift)
        row = widen(_check_centre(centre, self.shape[2], like=self.values))
        return replace(self, shift=xp.astype(row, self.dtype, copy=False)[None, None, :])

    def scored(self, mask: Array | None) -> DenseLogits:
        """With the rows outside `mask` zero."""
        return replace(self, mask=_both(self.mask, check_mask(mask, self.shape[:2], like=self.like)))

    def samples(self, start: int, stop: int, /) -> DenseLogits:
        """Samples `start` to `stop` alone."""
        mask = None if self.mask is None else self.mask[start:stop, ...]
        shift = self.shift
        if shift is not None and shift.shape[0] == self.shape[0]:
            shift = shift[start:stop, ...]
        return replace(self, values=self.values[start:stop, ...], mask=mask, shift=shift)

    def _block(self, start: int, stop: int) -> Array:
        shift = self.shift
        if shift is not None and shift.shape[2] > 1:
            shift = shift[:, :, start:stop]
        return self._finished(self.values[:, :, start:stop], shift, self.mask)

    def _finished(self, values: Array, shift: Array | None, mask: Array | None) -> Array:
        values = widen(values)
        return _zero_outside(values if shift is None else values - shift, mask)


Logits: TypeAlias = DenseLogits | HeadLogits


def as_logits(logits: Any, /) -> Logits:
    """Either kind of logits, from either or from a dense array (batch, time, vocab)."""
    if isinstance(logits, (DenseLogits, HeadLogits)):
        return logits
    wide_dtype(logits)
    if logits.ndim != 3:
        msg = f"`logits` must have shape (batch, time, vocab), got {tuple(logits.shape)}"
        raise ValueError(msg)
    return DenseLogits(logits)


def check_mask(mask: Array | None, shape: tuple[int, ...], /, *, like: Array, name: str = "mask") -> Array | None:
    """`mask` as booleans, after making sure that it is (batch, time) and lies where `like` does."""
    if mask is None:
        return None
    xp = array_namespace(mask, like)
    check_device(name, mask, like=like, like_name="logits")
    if tuple(mask.shape) != tuple(shape):
        msg = (
            f"`{name}` must have shape (batch, time) = {tuple(shape)}, one entry for each row, got {tuple(mask.shape)}"
        )
        raise ValueError(msg)
    return mask if mask.dtype == xp.bool else mask != 0


def positions(mask: Array, /) -> Array:
    """Each row's position (batch, time), counted from its sample's first scored row, gaps included; 0 before it."""
    xp = array_namespace(mask)
    time = xp.arange(mask.shape[1], dtype=xp.int32, device=device(mask))[None, :]
    first = xp.min(xp.where(mask, time, xp.full_like(time, mask.shape[1])), axis=1, keepdims=True)
    after = time - first
    return xp.where(after > 0, after, xp.zeros_like(after))


def _zero_outside(rows: Array, mask: Array | None) -> Array:
    # `where`, not a product: a row outside the mask may hold NaN
    xp = array_namespace(rows)
    return rows if mask is None else xp.where(mask[:, :, None], rows, xp.zeros_like(rows))


def _both(first: Array | None, second: Array | None) -> Array | None:
    if first is None or second is None:
        return first if second is None else second
    return first & second


def _block_items(others: int, block_bytes: int) -> int:
    if block_bytes < 1:
        msg = f"`block_bytes` must be positive, got {block_bytes}"
        raise ValueError(msg)
    return max(1, block_bytes // (8 * max(others, 1)))  # 8: the widest dtype a block is turned into


def _is_row(centre: str) -> bool:
    if centre not in ("none", "row"):
        msg = f"`centre` must be 'none', 'row' or an array, got {centre!r}"
        raise ValueError(msg)
    return centre == "row"


def _check_centre(centre: Array, size: int, *, like: Array) -> Array:
    array_namespace(centre, like)
    check_device("centre", centre, like=like, like_name="logits")
    if tuple(centre.shape) != (size,):
        msg = f"`centre` must have shape ({size},) here, got {tuple(centre.shape)}"
        raise ValueError(msg)
    return centre
