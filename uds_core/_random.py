"""Random constants, drawn by NumPy from a seed: the same for every library and process."""

import functools
from enum import IntEnum
from numbers import Integral

import numpy as np

from . import _options
from ._array import constant_in_graphs

_WORD = 2**32
_POSITION_BLOCK = 512  # signs of positions are drawn in blocks, so that a long sample extends a short one's


class Stream(IntEnum):
    """Independent random streams of one seed. Never renumber: saved sketches depend on the numbers."""

    TIME = 0
    VOCAB = 1
    FREQUENCIES = 2
    FOLD = 3
    RELEASED = 4
    SUBSPACE = 5
    RESERVOIR = 6
    RANDOM = 7
    GUMBEL = 8
    WIDTH = 9
    GLANCE = 10
    NGRAMS = 11
    EXPLORE = 12
    VOCABULARY_ROWS = 13
    VOCABULARY_SAMPLE = 14


def generator(seed: int, stream: int, key: int = 0) -> np.random.Generator:
    """Return a separate generator for each seed (below 2**63), stream and key (below 2**32).

    NumPy cuts numbers into words of 32 bits, one after the other, and fills up with zeros, so that ``[1, 2]``,
    ``[1, 2, 0]`` and ``[1 + 2 * 2**32]`` all start alike. Here the words are always four, each with its own meaning.
    """
    _options.seed(seed)
    expected = "a whole number of at least 0 and below 2**32"
    _options.check("key", key, expected, kind=Integral, fits=lambda n: 0 <= n < _WORD)
    return np.random.default_rng([seed % _WORD, stream, key, seed // _WORD])


@functools.lru_cache(maxsize=32)
@constant_in_graphs
def signs(seed: int, stream: int, block: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return random signs -1 and 1, int8."""
    return generator(seed, stream, block).integers(0, 2, size=shape, dtype=np.int8) * 2 - 1


def position_signs(seed: int, length: int, columns: int) -> np.ndarray:
    """Return the signs of the positions 0 to `length`, (length, columns); those of a longer sample begin with them."""
    blocks = range(-(-length // _POSITION_BLOCK))
    drawn = [signs(seed, Stream.TIME, block, (_POSITION_BLOCK, columns)) for block in blocks]
    return np.concatenate([np.empty((0, columns), np.int8), *drawn])[:length]


@functools.lru_cache(maxsize=32)
@constant_in_graphs
def rows(seed: int, side: int, length: int, rank: int) -> np.ndarray:
    """Draw at most `rank` of `length` rows of a transform without replacement; return them in order."""
    drawn = generator(seed, Stream.FREQUENCIES, side).choice(length, size=min(rank, length), replace=False)
    return np.sort(drawn).astype(np.int32)


@functools.lru_cache(maxsize=8)
@constant_in_graphs
def permutation(seed: int, stream: int, key: int, length: int) -> np.ndarray:
    """Return the numbers from 0 to `length` in random order, int32."""
    return generator(seed, stream, key).permutation(length).astype(np.int32)


@functools.lru_cache(maxsize=8)
@constant_in_graphs
def vocabulary_rows(seed: int, vocab: int, number: int) -> np.ndarray:
    """Draw `number` of `vocab` entries of a vocabulary without replacement; return them in order, int32."""
    return np.sort(generator(seed, Stream.VOCABULARY_ROWS).choice(vocab, size=number, replace=False)).astype(np.int32)


@functools.lru_cache(maxsize=4)
@constant_in_graphs
def fold(seed: int, vocab: int, buckets: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Assign `vocab` columns to buckets: a shift for each run of `buckets` columns, and a sign for each column.

    Column c falls into bucket (c + the shift of its run) mod buckets. Two columns of one run never share a bucket;
    two of different runs do with probability 1 / buckets, as in a random permutation. Runs are read in order.
    """
    drawing = generator(seed, Stream.FOLD)
    turns = drawing.integers(0, buckets, size=-(-vocab // buckets))
    return tuple(turns.tolist()), drawing.integers(0, 2, size=vocab, dtype=np.int8) * 2 - 1
