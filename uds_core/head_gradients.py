"""Gradients of each sample's loss in the LM head's weight: norms, products and sketches, from a forward pass alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import _random
from ._array import (
    Array,
    accumulation_dtype,
    array_namespace,
    at_least_one,
    check_device,
    constant,
    device,
    take,
    widen,
)
from ._random import Stream
from .head_logits import HeadLogits
from .logits import Logits, as_logits
from .rows import BLOCK_BYTES, IGNORE, block_items, check_vocabulary, clean_rows

_COPIES = 5  # of a block in memory, while one is exponentiated, compared with targets, multiplied and summed


class HeadGradients:
    r"""The gradient of each sample's mean loss in the head's weight, as a value that is never computed in full.

    .. math:: g_i = \frac{c}{n_i} R_i^T H_i, \qquad R_i = \operatorname{softmax}(L_i) - Y_i

    L_i, H_i: logits and hidden states of the n_i rows that count. Y_i: ones at their targets. c: the head's scale. Of a
    weight that is tied to the embeddings, only the head's part of the gradient.

    Parameters
    ----------
    logits
        ``head(hidden)``; or dense (batch, time, vocab).
    labels
        (batch, time) integers: the target of each row, already shifted; -100 for none.
    mask
        (batch, time), true for rows that count, beside those with a target.
    hidden, scale
        With dense logits: the hidden states (batch, time, width) that they are computed from, and its scale c. Without
        `hidden`, only `logit_norms` can be computed.

    Raises
    ------
    ValueError
        Where shapes or devices do not fit, there is no vocabulary, or `hidden` is given twice.

    Notes
    -----
    A sample without targets has gradient 0. One with a target outside the vocabulary or a number that is not finite has
    NaN everywhere, and spoils no other. Half floats are widened. Each method walks the logits in blocks of the
    vocabulary that need `block_bytes`: once for the softmax, once for what it is wanted for. The residual at the
    target is minus the sum of the other probabilities, so that a confident row's small gradient is no rounding error.
    """

    def __init__(
        self,
        logits: Any,
        labels: Array,
        /,
        *,
        mask: Array | None = None,
        hidden: Array | None = None,
        scale: float = 1.0,
    ) -> None:
        logits = as_logits(logits)
        xp = array_namespace(logits.like, labels)
        check_vocabulary(logits.shape[2])
        check_device("labels", labels, like=logits.like, like_name="logits")
        if tuple(labels.shape) != logits.shape[:2]:
            msg = f"`labels` must have shape (batch, time) = {logits.shape[:2]}, got {tuple(labels.shape)}"
            raise ValueError(msg)
        self.logits: Logits = logits.scored(mask).scored(labels != IGNORE)
        self.labels = labels
        number = xp.sum(xp.astype(self._counted, self.logits.dtype), axis=1)
        self._number = at_least_one(number)
        self._hidden, self._scale = _hidden_of(self.logits, hidden, scale)
        self._clean: Array | None = None

    @property
    def width(self) -> int:
        """The head's second size."""
        return self._known_hidden.shape[2]

    def logit_norms(self, *, block_bytes: int = BLOCK_BYTES) -> Array:
        r"""Return the norm of each sample's gradient in its logits, (batch,), in nats.

        .. math:: \frac{1}{n_i} \sqrt{\sum_t q_{it}^2}, \qquad q_{it} = \|\operatorname{softmax}(L_{it}) - y_{it}\|_2

        Times c and the spectral norm of H_i, a bound on `norms`. One pass, and no hidden states.
        """
        xp = array_namespace(self.logits.like)
        softmax = self._softmax(block_bytes)
        squares = (softmax.others**2 + softmax.squares) * softmax.inverse**2
        return xp.sqrt(xp.sum(squares, axis=1)) / self._number

    def norms(self, *, block_bytes: int = BLOCK_BYTES) -> Array:
        r"""Return the Frobenius norm of each sample's gradient, (batch,): the root of <H H^T, R R^T> for short samples.

        O(batch time vocab (width + min(time, width))).
        """
        xp = array_namespace(self.logits.like)
        rows, wide = self._rows, accumulation_dtype(self.logits.like)
        total = xp.zeros((rows.shape[0],), dtype=wide, device=device(rows))
        if rows.shape[1] <= rows.shape[2]:
            gram = rows @ xp.matrix_transpose(rows)
            for _, residuals in self._residuals(self._step(0, block_bytes), block_bytes):
                here = xp.sum(gram * (residuals @ xp.matrix_transpose(residuals)), axis=(1, 2))
                total = total + xp.astype(here, wide, copy=False)
        else:
            for block in self._blocks(self._step(rows.shape[2], block_bytes), block_bytes):
                total = total + xp.astype(xp.sum(block * block, axis=(1, 2)), wide, copy=False)
        # rounding may take a sum that is nearly 0 below it
        return xp.astype(xp.sqrt(xp.maximum(total, xp.zeros_like(total))), self.logits.dtype, copy=False)

    def products(self, *others: HeadGradients, block_bytes: int = BLOCK_BYTES) -> Array:
        """Return the inner products of each sample's gradient with each of `others`, side by side: (batch, all others).

        Default: with each other. O(vocab width (all rows + batch all others)).
        """
        xp = array_namespace(self.logits.like)
        others = others or (self,)
        here = (self.logits.shape[2], self.width)
        for there in ((other.logits.shape[2], other.width) for other in others):
            if here != there:
                msg = f"`others` must be gradients of the same head (vocab, width) = {here}, got {there}"
                raise ValueError(msg)
        every = (self, *(other for other in others if other is not self))
        shared = max(1, block_bytes // len(every))
        step = min(one._step(one.width, shared) for one in every)
        wide = accumulation_dtype(self.logits.like)
        total: Any = 0.0
        for blocks in zip(*(one._blocks(step, shared) for one in every), strict=True):
            known = iter(blocks)
            mine = next(known)
            across = [mine if other is self else next(known) for other in others]
            # one small product for each token: one long product over all numbers took 18 times as long
            rows = xp.permute_dims(mine, (1, 0, 2))
            parts = [xp.sum(rows @ xp.permute_dims(one, (1, 2, 0)), axis=0) for one in across]
            total = total + xp.astype(xp.concat(parts, axis=1), wide, copy=False)
        return xp.astype(total, self.logits.dtype, copy=False)

    def sketch(self, *, dim: int, seed: int = 0, block_bytes: int = BLOCK_BYTES) -> Array:
        r"""Sketch (batch, dim) that keeps inner products: E <z_i, z_k> = <g_i, g_k> over seeds.

        .. math:: z_{ij} = \frac{1}{\sqrt d} (F u_j)^T g_i v_j

        F: the vocabulary dealt into 2 dim buckets with random signs. u_j, v_j: random signs. See `PairedSketch`. The
        relative variance of |z_i|^2 is between 2 / dim and 9 / dim. O(batch time (vocab (width + dim) + width dim)).
        """
        xp = array_namespace(self.logits.like)
        rows, vocab = self._rows, self.logits.shape[2]
        signs, buckets, pairs = _vocabulary(vocab, dim, seed)
        pairs = constant(pairs, like=rows, dtype=rows.dtype)
        side: Any = 0.0
        for start, residuals in self._residuals(self._step(0, block_bytes), block_bytes):
            here = slice(start, start + residuals.shape[2])
            dealt = take(pairs, constant(buckets[here], like=rows))
            side = side + residuals @ (dealt * constant(signs[here, None], like=rows, dtype=rows.dtype))
        across = constant(_random.signs(seed, Stream.WIDTH, 0, (self.width, dim)), like=rows, dtype=rows.dtype)
        return xp.sum(side * (rows @ across), axis=1) / float(dim) ** 0.5

    def in_hidden(self, *, block_bytes: int = BLOCK_BYTES) -> Array:
        """Return the gradient of each sample's mean loss in its hidden states, (batch, time, width): c / n R W.

        Any framework can backpropagate it further; no logits are computed in full. Of ``head(hidden)`` only.
        """
        logits = self.logits
        if not isinstance(logits, HeadLogits):
            msg = "gradients in the hidden states need the head: give `head(hidden)`, not dense logits"
            raise TypeError(msg)
        xp = array_namespace(logits.like)
        total = xp.zeros((*logits.shape[:2], self.width), dtype=logits.dtype, device=device(logits.like))
        for start, residuals in self._residuals(self._step(0, block_bytes), block_bytes):
            weight = logits.head.rows(start, start + residuals.shape[2])[:, : self.width]
            total = total + residuals @ xp.astype(weight, logits.dtype, copy=False)
        return total / self._number[:, None, None]

    @property
    def _counted(self) -> Array:
        return self.logits.mask  # there is one: the targets'

    @property
    def _rows(self) -> Array:
        """H_i times c / n_i, zero outside the mask: with the residuals, the two factors of a gradient."""
        if self._clean is None:
            xp, hidden = array_namespace(self.logits.like), self._known_hidden
            rows = clean_rows(xp.astype(widen(hidden), self.logits.dtype, copy=False), self._counted)
            self._clean = rows * (self._scale / self._number)[:, None, None]
        return self._clean

    @property
    def _known_hidden(self) -> Array:
        """The hidden states (batch, time, width); an error where there are none."""
        if self._hidden is None:
            msg = (
                "the gradient in the head's weight needs the hidden states: give `head(hidden)`, or dense logits with "
                "`hidden`; without them, only `logit_norms` can be computed"
            )
            raise ValueError(msg)
        return self._hidden

    def _softmax(self, block_bytes: int) -> _Softmax:
        """Return the parts of each row's softmax, in one pass over the vocabulary."""
        logits = self.logits
        xp = array_namespace(logits.like)
        others = squares = target = xp.zeros(logits.shape[:2], dtype=logits.dtype, device=device(logits.like))
        top = xp.full_like(others, -xp.inf)
        for start, block in logits.blocks(block_bytes=max(1, block_bytes // _COPIES)):
            hit = self._hits(start, block.shape[2])
            target = target + xp.sum(xp.where(hit, block, xp.zeros_like(block)), axis=2)
            higher = xp.maximum(top, xp.max(block, axis=2))
            shrunk = xp.exp(top - higher)
            powers = xp.where(hit, xp.zeros_like(block), xp.exp(block - higher[:, :, None]))
            others = others * shrunk + xp.sum(powers, axis=2)
            squares = squares * shrunk**2 + xp.sum(powers * powers, axis=2)
            top = higher
        known = (self.labels >= 0) & (self.labels < logits.shape[2])
        inverse = 1.0 / (others + xp.exp(target - top))
        inverse = xp.where(known, inverse, xp.full_like(inverse, xp.nan))
        return _Softmax(top, others, squares, xp.where(self._counted, inverse, xp.zeros_like(inverse)))

    def _residuals(self, step: int, block_bytes: int) -> Iterator[tuple[int, Array]]:
        """Yield blocks (batch, time, step) of R, each with its first column's index."""
        xp = array_namespace(self.logits.like)
        softmax = self._softmax(block_bytes)
        others, top, inverse = (x[:, :, None] for x in (softmax.others, softmax.top, softmax.inverse))
        batch, time, _ = self.logits.shape
        for start, block in self.logits.blocks(block_bytes=8 * step * max(batch * time, 1)):
            hit = self._hits(start, block.shape[2])
            yield start, xp.where(hit, -others, xp.exp(block - top)) * inverse

    def _blocks(self, step: int, block_bytes: int) -> Iterator[Array]:
        """Yield blocks (batch, step, width) of the gradients themselves."""
        xp = array_namespace(self.logits.like)
        rows = self._rows
        for _, residuals in self._residuals(step, block_bytes):
            yield xp.matrix_transpose(residuals) @ rows

    def _hits(self, start: int, size: int) -> Array:
        """Return the places (batch, time, size) of the targets in a block of the vocabulary."""
        xp = array_namespace(self.labels)
        columns = xp.arange(size, dtype=self.labels.dtype, device=device(self.labels))
        return columns[None, None, :] == self.labels[:, :, None] - start

    def _step(self, width: int, block_bytes: int) -> int:
        """Return the columns of the vocabulary in a block, with `width` more numbers for each column and sample."""
        batch, time, vocab = self.logits.shape
        return min(vocab, block_items(batch * (_COPIES * time + 2 * width), block_bytes))


class _Softmax(NamedTuple):
    """Of each row (batch, time), with e = exp(logit - top)."""

    top: Array  # its highest logit
    others: Array  # sum of e over all but the target
    squares: Array  # sum of e^2 over the same
    inverse: Array  # one over the sum of e with the target; 0 where the row does not count


def _hidden_of(logits: Logits, hidden: Array | None, scale: float) -> tuple[Array | None, float]:
    """Return the hidden states and the scale that logits were made with."""
    if isinstance(logits, HeadLogits):
        if hidden is not None or scale != 1.0:
            msg = "`hidden` and `scale` go with dense logits; `head(hidden)` knows its own"
            raise ValueError(msg)
        return logits.hidden, logits.head.scale
    if hidden is not None:
        array_namespace(hidden, logits.like)
        check_device("hidden", hidden, like=logits.like, like_name="logits")
        if hidden.ndim != 3 or tuple(hidden.shape[:2]) != logits.shape[:2]:
            msg = f"`hidden` must have shape {(*logits.shape[:2], 'width')} to fit `logits`, got {tuple(hidden.shape)}"
            raise ValueError(msg)
    return hidden, scale


def _vocabulary(vocab: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each token's sign and bucket, and each bucket's row of signs."""
    number = min(2 * dim, vocab)
    turns, signs = _random.fold(seed, vocab, number)
    token = np.arange(vocab)
    buckets = (token % number + np.asarray(turns)[token // number]) % number
    return signs, buckets.astype(np.int32), _random.signs(seed, Stream.VOCAB, 0, (number, dim))
