"""The LM head as a value."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
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
    take,
    wide_dtype,
    widen,
)
from ._random import vocabulary_rows
from .head_logits import HeadLogits
from .rows import BLOCK_BYTES, block_items


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
    little, or `updated`. The factor costs O(vocab width^2) once and keeps width^2 numbers; the weight is never copied.
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
        self._memo: dict[Hashable, Any] = {}

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

    def drawn(self, number: int, /, *, seed: int = 0) -> HeadRows:
        """Return copies of `number` rows of the augmented head, drawn at random without replacement; at most all."""
        _options.whole("number", number)
        index = constant(vocabulary_rows(seed, self.vocab, min(number, self.vocab)), like=self.weight)
        return HeadRows(index, self._at(index))

    def updated(self, weight: Array, bias: Array | None = None, /, *, since: HeadRows) -> Head:
        r"""Return the head of changed weights, its factor corrected by some rows of what it was made of.

        .. math:: C' C'^{\mathsf T} = C C^{\mathsf T} + \frac{V}{n} \sum_{v \in S}
            \left(a'_v a_v'^{\mathsf T} - a_v a_v^{\mathsf T}\right)

        a_v: row v of the augmented head as it was when `since`, its rows S, were `drawn`; a'_v: as it is. The sum is an
        unbiased estimate of how the Gram matrix has changed: its error is in proportion to the change. The mean row is
        corrected alike; sketches are derived anew. O(n width^2 + width^3) time, and O(vocab width) for each sketch.
        """
        now = self._with(weight, bias, self._offset)
        rows = now._at(since.index)
        now._renew(self, since.values, rows)
        if "centred" in self._memo:
            centred: Any = self._memo["centred"]
            mean = centred._offset + array_namespace(rows).mean(rows - since.values, axis=0)
            made = self._with(weight, bias, mean)
            made._renew(centred, since.values - centred._offset, rows - mean)
            now._memo["centred"] = made
        return now

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

    def _at(self, index: Array) -> Array:
        return self._augmented(take(self.weight, index), None if self.bias is None else take(self.bias, index))

    def _renew(self, made: Head, before: Array, after: Array) -> None:
        """Store what `made` has: its factor corrected by rows that were `before` and are `after`, sketches anew."""
        for key, one in made._memo.items():
            if key == "factor":
                self._memo[key] = factors.corrected(one, before, after, number=self.vocab)
            elif key != "centred":
                self.projection(key)

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
class HeadRows:
    """Rows of an augmented head as they were: `index` (n,) into the vocabulary, and `values` (n, columns)."""

    index: Array
    values: Array
