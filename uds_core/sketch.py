"""Small random projections of logits matrices that keep distances: frozen recipes (shape, rank, seed).

A recipe holds no arrays. Its constants are drawn by NumPy from the seed where the data is, so the same recipe gives the
same sketch on every library. Rows are keyed by a sample's own positions, counted from its first scored row: neither
padding nor batch-mates change a sketch.
"""

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ._array import Array, array_namespace, constant
from .head import Head
from .logits import DenseLogits, as_logits
from .rows import positions

__all__ = ["FourierSketch", "PairedSketch", "Sketch"]

_POSITION_BLOCK = 512  # signs of positions are drawn in blocks, so that a long sample extends a short one's
_TIME, _VOCAB, _FREQUENCIES, _FOLD = range(4)  # independent random streams of one seed


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
        _check_sizes(time=self.time, vocab=self.vocab)
        _check_sizes(**{"rank[0]": self.rank[0], "rank[1]": self.rank[1]})
        object.__setattr__(self, "rank", (int(self.rank[0]), int(self.rank[1])))

    @property
    def dim(self) -> int:
        """Numbers in a sketch."""
        return min(self.rank[0], self.time) * min(self.rank[1], self.vocab)

    def __call__(self, logits: Any, /, *, mask: Array | None = None) -> Array:
        """Sketch of each sample, (batch, dim), in the dtype computed in.

        `logits`: (batch, time, vocab) or ``head(hidden)``; `mask`: (batch, time), true for scored rows, default all.
        """
        columns, table = _sides(self, logits, mask)
        xp = array_namespace(columns)
        return xp.reshape(xp.matrix_transpose(table) @ columns, (columns.shape[0], self.dim))

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """G1 along the vocabulary of `source`, in place of it the last axis: (..., rank)."""
        xp = array_namespace(source.like)
        like, dtype = source.like, source.dtype
        signs = constant(_signs(self.seed, _VOCAB, 0, (self.vocab,)), like=like, dtype=dtype)
        wanted = _hartley_rows(self.seed, _VOCAB, self.vocab, self.rank[1])
        # row k <= n/2 is Re - Im of the real FFT, its mirror n - k is Re + Im
        mirrored = wanted > self.vocab // 2
        index = constant(np.where(mirrored, self.vocab - wanted, wanted), like=like)
        mirror = constant(np.where(mirrored, 1.0, -1.0), like=like, dtype=dtype)
        picked = [xp.take(xp.fft.rfft(strip * signs), index, axis=-1) for strip in source.strips()]
        parts = [xp.real(part) + mirror * xp.imag(part) for part in picked]
        return xp.concat(parts, axis=-2) / len(wanted) ** 0.5

    def time_table(self, length: int, /, *, like: Array, dtype: Any) -> Array:
        """G2 transposed for positions 0 to `length`: (length, rank)."""
        wanted = _hartley_rows(self.seed, _TIME, self.time, self.rank[0]).astype(np.int64)
        at = np.arange(length, dtype=np.int64)
        angle = (at[:, None] % self.time) * wanted[None, :] % self.time * (2 * np.pi / self.time)
        table = (np.cos(angle) + np.sin(angle)) * _position_signs(self.seed, length, 1) / len(wanted) ** 0.5
        return constant(table, like=like, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class PairedSketch:
    r"""Independent bilinear features of a logits matrix, its vocabulary first folded into 2 dim buckets.

    .. math:: z_j = u_j^T (L F) v_j / \sqrt{d}, \qquad j = 1, \dots, d

    F: a random permutation and random signs, summed into buckets. u_j, v_j: random signs. Each feature has its own
    pair, so no side is short: on logits that share a large common row, distances spread by 3-4 % over seeds where an
    8 x 128 grid of the same size spreads by 8-22 %.

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

    time: int
    vocab: int
    dim: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        _check_sizes(time=self.time, vocab=self.vocab, dim=self.dim)

    def __call__(self, logits: Any, /, *, mask: Array | None = None) -> Array:
        """Sketch of each sample, (batch, dim), in the dtype computed in.

        `logits`: (batch, time, vocab) or ``head(hidden)``; `mask`: (batch, time), true for scored rows, default all.
        """
        columns, table = _sides(self, logits, mask)
        return array_namespace(columns).sum(columns * table, axis=1)

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """F and all v_j along the vocabulary of `source`, in place of it the last axis: (..., dim)."""
        like, dtype = source.like, source.dtype
        buckets = min(2 * self.dim, self.vocab)
        index, signs = _fold(self.seed, self.vocab, buckets)
        turns = range(index.shape[0])
        # the first term is not added to zeros, so that the sum keeps the memory order of its terms
        folded = sum(
            (
                constant(signs[turn], like=like, dtype=dtype) * source.take(constant(index[turn], like=like))
                for turn in turns[1:]
            ),
            start=constant(signs[0], like=like, dtype=dtype) * source.take(constant(index[0], like=like)),
        )
        pairs = constant(_signs(self.seed, _VOCAB, 0, (buckets, self.dim)), like=like, dtype=dtype)
        return folded @ pairs

    def time_table(self, length: int, /, *, like: Array, dtype: Any) -> Array:
        """All u_j / sqrt(d) for positions 0 to `length`: (length, dim)."""
        return constant(_position_signs(self.seed, length, self.dim) / self.dim**0.5, like=like, dtype=dtype)


Sketch: TypeAlias = FourierSketch | PairedSketch


def _sides(sketch: Sketch, logits: Any, mask: Array | None) -> tuple[Array, Array]:
    """What both sketches pair: vocabulary features (batch, time, .) and the time side at each row's own position."""
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
    return columns, xp.reshape(xp.take(table, at, axis=0), (batch, time, table.shape[1]))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            msg = f"`{name}` must be at least 1, got {size}"
            raise ValueError(msg)


def _generator(seed: int, *keys: int) -> np.random.Generator:
    return np.random.default_rng([seed, *keys])


@functools.lru_cache(maxsize=32)
def _signs(seed: int, stream: int, block: int, shape: tuple[int, ...]) -> np.ndarray:
    return _generator(seed, stream, block).integers(0, 2, size=shape, dtype=np.int8) * 2 - 1


def _position_signs(seed: int, length: int, columns: int) -> np.ndarray:
    blocks = range(-(-length // _POSITION_BLOCK))
    drawn = [_signs(seed, _TIME, block, (_POSITION_BLOCK, columns)) for block in blocks]
    return np.concatenate([np.empty((0, columns), np.int8), *drawn])[:length]


@functools.lru_cache(maxsize=32)
def _hartley_rows(seed: int, side: int, length: int, rank: int) -> np.ndarray:
    drawn = _generator(seed, _FREQUENCIES, side).choice(length, size=min(rank, length), replace=False)
    return np.sort(drawn).astype(np.int32)


@functools.lru_cache(maxsize=4)
def _fold(seed: int, vocab: int, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Which columns fall into which bucket, (turns, buckets), and with which sign; 0 where a bucket is short by one."""
    generator = _generator(seed, _FOLD)
    turns = -(-vocab // buckets)
    index = np.zeros(turns * buckets, dtype=np.int32)
    signs = np.zeros(turns * buckets, dtype=np.int8)
    index[:vocab] = generator.permutation(vocab)
    signs[:vocab] = generator.integers(0, 2, size=vocab, dtype=np.int8) * 2 - 1
    return index.reshape(turns, buckets), signs.reshape(turns, buckets)
