"""Random projections of logits matrices that preserve distances; immutable values of shape, rank and seed.

A recipe holds no arrays. Its constants are drawn by NumPy from the seed where the data is, so the same recipe gives the
same sketch on every library. Rows are keyed by a sample's own positions, counted from its first scored row: neither
padding nor batch-mates change a sketch.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from . import _options, _random
from ._array import Array, add_turned, array_namespace, constant, device, take
from ._random import Stream
from .head import Head
from .logits import DenseLogits, as_logits
from .rows import block_starts, positions


@dataclass(frozen=True, kw_only=True)
class FourierSketch:
    r"""Two-sided subsampled randomised Hartley transform of a logits matrix, the paper's sketch made isometric.

    .. math:: z = \operatorname{vec}(G_2 L G_1^T), \quad G = \sqrt{n/r}\, S F D

    D: random signs. F: the orthonormal Hartley transform, ``(cos + sin)(2 pi k t / n) / sqrt(n)``, from one real FFT.
    S: r of its n rows, drawn without replacement.

    Parameters
    ----------
    time
        Length n of the time side; later positions wrap, with fresh signs.
    vocab
        Length n of the vocabulary side: the logits' third size.
    rank
        (time rows, vocabulary rows); each is cut to its length.
    seed
        Seed of all constants.

    Notes
    -----
    E |z|^2 = |L|_F^2 over seeds. O(time vocab log vocab) for a dense sample, O(time width rank) through a prepared
    head. Where rows share a large common part the few time rows lose distances: see `PairedSketch`.
    Source: UDS, arXiv 2510.16882; Tropp, arXiv 1011.1595 (subsampled randomised transforms).
    """

    time: int
    vocab: int
    rank: tuple[int, int] = (8, 128)
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.seed, time=self.time, vocab=self.vocab)
        _options.check("rank", self.rank, "two whole numbers", kind=(tuple, list), fits=lambda given: len(given) == 2)
        _check(self.seed, **{"rank[0]": self.rank[0], "rank[1]": self.rank[1]})
        object.__setattr__(self, "rank", (int(self.rank[0]), int(self.rank[1])))

    @property
    def dim(self) -> int:
        """Numbers in a sketch."""
        return min(self.rank[0], self.time) * min(self.rank[1], self.vocab)

    def __call__(self, logits: Any, /, *, mask: Array | None = None) -> Array:
        """Return the sketch (batch, dim) of each sample, in the dtype computed in.

        `logits`: (batch, time, vocab) or ``head(hidden)``; `mask`: (batch, time), true for scored rows, default all.
        """
        columns, table = _sides(self, logits, mask)
        xp = array_namespace(columns)
        return xp.reshape(xp.matrix_transpose(table) @ columns, (columns.shape[0], self.dim))

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """Apply G1 along the vocabulary of `source`: (..., rank)."""
        like, dtype = source.like, source.dtype
        signs = constant(_random.signs(self.seed, Stream.VOCAB, 0, (self.vocab,)), like=like, dtype=dtype)
        wanted = _random.rows(self.seed, Stream.VOCAB, self.vocab, self.rank[1])
        # row k <= n/2 is Re - Im of the real FFT, its mirror n - k is Re + Im
        mirrored = wanted > self.vocab // 2
        index = constant(np.where(mirrored, self.vocab - wanted, wanted), like=like)
        mirror = constant(np.where(mirrored, 1.0, -1.0), like=like, dtype=dtype)
        real, imaginary = frequencies(source, signs, index)
        return (real + mirror * imaginary) / len(wanted) ** 0.5

    def time_table(self, length: int, /, *, like: Array, dtype: Any) -> Array:
        """Return G2 transposed for positions 0 to `length`: (length, rank)."""
        wanted = _random.rows(self.seed, Stream.TIME, self.time, self.rank[0]).astype(np.int64)
        at = np.arange(length, dtype=np.int64)
        angle = (at[:, None] % self.time) * wanted[None, :] % self.time * (2 * np.pi / self.time)
        table = (np.cos(angle) + np.sin(angle)) * _random.position_signs(self.seed, length, 1) / len(wanted) ** 0.5
        return constant(table, like=like, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class _Sized:
    """Options of a sketch whose size is one number."""

    time: int
    vocab: int
    dim: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.seed, time=self.time, vocab=self.vocab, dim=self.dim)


@dataclass(frozen=True, kw_only=True)
class PairedSketch(_Sized):
    r"""Independent bilinear features of a logits matrix, its vocabulary first folded into 2 dim buckets.

    .. math:: z_j = u_j^T (L F) v_j / \sqrt{d}, \qquad j = 1, \dots, d

    F: columns dealt at random into buckets and summed with random signs. u_j, v_j: random signs. Each feature has its
    own pair, so no side is short: on logits that share a large common row, distances spread by 3-4 % over seeds where
    an 8 x 128 grid of the same size spreads by 8-22 %.

    Parameters
    ----------
    time
        Length that samples usually have. Signs of positions are drawn as needed, so it changes nothing.
    vocab
        The logits' third size.
    dim
        Numbers d in a sketch.
    seed
        Seed of all constants.

    Notes
    -----
    E |z|^2 = |L|_F^2 over seeds. O(time (vocab + dim^2)) for a dense sample, O(time width dim) through a prepared head.
    """

    def __call__(self, logits: Any, /, *, mask: Array | None = None) -> Array:
        """Return the sketch (batch, dim) of each sample; arguments as in `FourierSketch`."""
        columns, table = _sides(self, logits, mask)
        return array_namespace(columns).sum(columns * table, axis=1)

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """Apply F and all v_j along the vocabulary of `source`: (..., dim)."""
        like, dtype = source.like, source.dtype
        buckets = min(2 * self.dim, self.vocab)
        folded = _folded(source, self.vocab, buckets, seed=self.seed)
        pairs = constant(_random.signs(self.seed, Stream.VOCAB, 0, (buckets, self.dim)), like=like, dtype=dtype)
        return folded @ pairs

    def time_table(self, length: int, /, *, like: Array, dtype: Any) -> Array:
        """Return all u_j / sqrt(d) for positions 0 to `length`: (length, dim)."""
        return constant(_random.position_signs(self.seed, length, self.dim) / self.dim**0.5, like=like, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class ShiftedSketch(_Sized):
    r"""Rows of a logits matrix folded into d buckets, turned by their position, and summed with random signs.

    .. math:: z = \sum_t s_t \, P^t F^T L_t

    F: the vocabulary's columns dealt at random into d buckets, with random signs. P: the cyclic shift by one bucket.
    L_t: row t. s_t: random signs. Each pair of position and column thus has one bucket and one sign: a count sketch of
    the whole matrix, made of a count sketch of each side.

    Parameters
    ----------
    time
        Length that samples usually have. Signs of positions are drawn as needed, so it changes nothing.
    vocab
        The logits' third size.
    dim
        Numbers d in a sketch.
    seed
        Seed of all constants.

    Notes
    -----
    E |z|^2 = |L|_F^2 over seeds, with a relative variance of about (2 + 2 c) / d for samples of at most d rows, where
    c = |L L^T|_F^2 / |L|_F^4 is 1 for a matrix of rank one and small for a flat spectrum; 2 / d is what a dense matrix
    of d rows of signs has. `PairedSketch` has (2 + 7 c) / d. O(time (vocab + dim)) for a dense sample, O(time width
    dim) through a prepared head. Source: Pham & Pagh, KDD 2013 (tensor sketch), here of matrices that are no products.
    """

    def __call__(self, logits: Any, /, *, mask: Array | None = None) -> Array:
        """Return the sketch (batch, dim) of each sample; arguments as in `FourierSketch`."""
        logits = as_logits(logits).scored(mask)
        columns, signs = _sides(self, logits, None)
        return shifted_sum(columns * signs, mask=logits.mask)

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """Apply F^T along the vocabulary of `source`: (..., dim)."""
        # neighbours must not stay neighbours, or rows that are shifted by one would always meet in the same columns
        order = _random.permutation(self.seed, Stream.FOLD, 1, self.dim)
        folded = _folded(source, self.vocab, self.dim, seed=self.seed)
        return take(folded, constant(order, like=source.like), axis=-1)

    def time_table(self, length: int, /, *, like: Array, dtype: Any) -> Array:
        """Return all s_t for positions 0 to `length`: (length, 1)."""
        return constant(_random.position_signs(self.seed, length, 1), like=like, dtype=dtype)


Sketch: TypeAlias = FourierSketch | PairedSketch | ShiftedSketch


def frequencies(source: Head | DenseLogits, signs: Array, index: Array, /) -> tuple[Array, Array]:
    """Return the real and imaginary parts (..., n) of the real FFT of `source` times `signs`, at `index` (n,)."""
    xp = array_namespace(source.like)
    real: list[Array] = []
    imaginary: list[Array] = []
    for strip in source.strips():
        if 0 in strip.shape:  # libraries do not transform arrays without numbers
            found = xp.zeros((*strip.shape[:-1], index.shape[0]), dtype=strip.dtype, device=device(strip))
            real, imaginary = [*real, found], [*imaginary, found]
            continue
        picked = take(xp.fft.rfft(strip * signs), index, axis=-1)
        real, imaginary = [*real, xp.real(picked)], [*imaginary, xp.imag(picked)]
    return xp.concat(real, axis=-2), xp.concat(imaginary, axis=-2)


def _sides(sketch: Sketch, logits: Any, mask: Array | None) -> tuple[Array, Array]:
    """Return both sides of a sketch: vocabulary features (batch, time, .) and the time side at each row's position."""
    logits = as_logits(logits).scored(mask)
    if logits.shape[2] != sketch.vocab:
        msg = f"`logits` have a vocabulary of {logits.shape[2]}, the sketch was made for `vocab`={sketch.vocab}"
        raise ValueError(msg)
    columns = logits.projection(sketch)
    batch, time, _ = logits.shape
    table = sketch.time_table(time, like=columns, dtype=columns.dtype)
    if logits.mask is None:
        return columns, table[None, :, :]
    xp = array_namespace(columns)
    at = xp.reshape(positions(logits.mask), (batch * time,))
    return columns, xp.reshape(take(table, at, axis=0), (batch, time, table.shape[1]))


def _folded(source: Head | DenseLogits, vocab: int, buckets: int, *, seed: int) -> Array:
    """Sum the columns of `source` into buckets with signs, one run of `buckets` columns after the other: (..., n)."""
    turns, drawn = _random.fold(seed, vocab, buckets)
    signs = constant(drawn, like=source.like, dtype=source.dtype)
    folded: Any = None
    for turn, start in zip(turns, range(0, vocab, buckets), strict=True):
        stop = min(start + buckets, vocab)
        folded = add_turned(folded, source.piece(start, stop), signs[start:stop], turn, buckets)
    return folded


def _check(seed: int, **sizes: int) -> None:
    _options.seed(seed)
    for name, size in sizes.items():
        _options.whole(name, size)


_BLOCK = 128  # rows shifted at once: more would copy more zeros


def shifted_sum(rows: Array, /, *, mask: Array | None = None) -> Array:
    """Sum the rows of (batch, time, dim), each shifted cyclically by its position in its sample: (batch, dim).

    `mask`: (batch, time), true for scored rows; all others must be zero. O(batch time dim), all additions.
    """
    xp = array_namespace(rows)
    batch, time, dim = rows.shape
    starts = block_starts(time, _BLOCK)
    blocks = (_block_sum(rows[:, start : min(start + _BLOCK, time), :]) for start in starts)
    turned = (xp.roll(block, start, axis=1) for start, block in zip(starts, blocks, strict=True))
    summed = sum(turned, start=xp.zeros((batch, dim), dtype=rows.dtype, device=device(rows)))
    return summed if mask is None or not time else _turned_back(summed, mask)


def _block_sum(rows: Array) -> Array:
    xp = array_namespace(rows)
    batch, time, dim = rows.shape
    zeros = xp.zeros((batch, time, time), dtype=rows.dtype, device=device(rows))
    # read with a line length that is one too short, row t starts t places further right
    flat = xp.reshape(xp.concat([rows, zeros], axis=2), (batch, time * (dim + time)))[:, : time * (dim + time - 1)]
    summed = xp.sum(xp.reshape(flat, (batch, time, dim + time - 1)), axis=1)
    turns = -(-(dim + time - 1) // dim)
    zeros = xp.zeros((batch, turns * dim - (dim + time - 1)), dtype=rows.dtype, device=device(rows))
    return xp.sum(xp.reshape(xp.concat([summed, zeros], axis=1), (batch, turns, dim)), axis=1)


def _turned_back(summed: Array, mask: Array) -> Array:
    """Turn shifts counted from the batch's first row into shifts counted from each sample's first scored row."""
    xp = array_namespace(summed, mask)
    batch, dim = summed.shape
    first = mask.shape[1] - 1 - positions(mask)[:, -1:]
    at = (xp.arange(dim, dtype=xp.int32, device=device(summed))[None, :] + first) % dim
    line = xp.arange(batch, dtype=xp.int32, device=device(summed))[:, None] * dim
    flat = take(xp.reshape(summed, (batch * dim,)), xp.reshape(line + at, (batch * dim,)))
    return xp.reshape(flat, (batch, dim))
