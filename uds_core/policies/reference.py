"""Reference mode: the exact selection of the authors' released code, for checking published settings."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _options, _random
from .._array import Array, array_namespace, constant, is_finite
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..head import Head
from ..logits import DenseLogits, Logits
from ..memory import Memory
from ..policy import Needs
from ..registry import register
from ..sketch import frequencies
from ..spectrum import nuclear_norm
from ._budgeted import Budgeted
from ._scored import Scored, is_storable, with_chosen
from ._sketched import MEMORY_DISTANCE, SketchState, fingerprint, memory_distance


@register("reference")
@dataclass(frozen=True, kw_only=True, eq=False)
class Reference(Budgeted):
    r"""Keep the samples that the authors' released code keeps, given the same signs and indices.

    .. math:: s_i = \|L_i\|_* + \alpha \frac1m \sum_{j=1}^m \|z_i - q_j\|_2, \quad
        z = \operatorname{vec}(G_2 L G_1^T), \quad G = \sqrt{n/r}\, S \operatorname{Re}(F) D

    All rows of the padded batch are scored, filled with zero rows to `time`. D: signs. F: the Fourier transform,
    not normalised. S: r of its n rows, drawn with replacement. q_j: the sketches of recently chosen samples.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    alpha
        Factor on diversity as published; `isometric_alpha` turns it into one for `UDS`.
    memory
        Number of chosen samples remembered.
    time
        Length that samples are filled to; longer ones are an error, as they are there.
    rank
        Rows drawn of the (time, vocabulary) side.
    seed
        Seed of what `signs` and `indices` do not give.
    signs
        NumPy arrays of -1 and 1, (time side (time,), vocabulary side (vocab,)), or None: drawn from the seed.
    indices
        NumPy arrays of whole numbers below ``time`` and ``vocab``, (time side (rank[0],), vocabulary side
        (rank[1],)), or None: drawn from the seed.

    Raises
    ------
    ValueError
        Where options do not fit one another; in `examine`, where a sample is longer than `time`.

    Notes
    -----
    For checking and comparing only: lengths are inflated by about ``sqrt(time vocab) / 2``, and the score of a sample
    depends on how much its batch was padded, and on which side. `UDS` has neither. Where the released code has no
    defined answer, this has one: ties go to the lower index, and a sample that is not finite is neither chosen nor
    remembered. O(batch (time width min(time, width) + memory r)) through a prepared head, with r numbers in a sketch.
    Source: UDS, arXiv 2510.16882.
    """

    needs = Needs(whole_batch=True, divisible=True)
    alpha: float = 1.5e-3
    memory: int = 1024
    time: int = 512
    rank: tuple[int, int] = (8, 128)
    seed: int = 0
    signs: tuple[Any, Any] | None = None
    indices: tuple[Any, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.number("alpha", self.alpha, "a number of at least 0", fits=lambda a: 0 <= a < float("inf"))
        _options.check("rank", self.rank, "two whole numbers", kind=(tuple, list), fits=lambda given: len(given) == 2)
        sizes = {"memory": self.memory, "time": self.time, "rank[0]": self.rank[0], "rank[1]": self.rank[1]}
        for name, value in sizes.items():
            _options.whole(name, value)
        _options.seed(self.seed)
        for name, value in (("signs", self.signs), ("indices", self.indices)):
            if value is not None:
                expected = "two arrays, for time and vocabulary, or None"
                _options.check(name, value, expected, kind=(tuple, list), fits=lambda given: len(given) == 2)
        if self.signs is not None:
            self._check_signs(self.signs[0], "signs[0]", self.time)
        for side, rank in enumerate(self.rank):
            if self.indices is not None:
                self._check_indices(np.asarray(self.indices[side]), f"indices[{side}]", rank)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `utility` (batch,), `sketch` (batch, rank[0] rank[1]) and `length` (batch,), all rows counted."""
        logits = candidates.logits
        return {
            "utility": nuclear_norm(logits, method="svd"),
            "sketch": self._recipe(logits)(logits),
            "length": candidates.lengths("all"),
        }

    def init(self, features: Features, /) -> SketchState:
        """Return an empty memory."""
        sketch = features["sketch"]
        recipe = fingerprint(self.time, self.rank, self.seed, self.signs, self.indices)
        return SketchState(Memory.empty(self.memory, sketch.shape[1], like=sketch), recipe)

    def prepare(self, state: SketchState | None, features: Features, rows: slice, /) -> Features:
        """Return `memory_distance` of the candidates `rows`; nothing while the memory is empty."""
        if state is None or not state.memory.size:
            return {}
        return {MEMORY_DISTANCE: memory_distance(features, state.memory, "mean", rows=rows)}

    def choose(
        self, state: SketchState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, SketchState]:
        """Choose by utility + alpha x diversity; then add the chosen to the memory, best first."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        utility, sketch = features["utility"], features["sketch"]
        far = memory_distance(features, state.memory, "mean")
        scores = utility + float(self.alpha) * far
        able = is_storable(sketch, is_finite(scores))
        scored = Scored.of(features, scores, parts={"utility": utility, "diversity": far}, groups=groups, storable=able)
        indices = self.scored_only(scored.best(self.budget), scored.numbers)
        memory = with_chosen(state.memory, sketch, indices, scored.host["storable"])
        return scored.selection(indices), SketchState(memory, state.recipe)

    def _recipe(self, logits: Logits) -> "_ReleasedSketch":
        _, rows, vocab = logits.shape
        if rows > self.time:
            msg = (
                f"`logits` have {rows} rows, more than `time`={self.time}, beyond which the released code breaks: "
                "cut the samples, give a larger `time`, or use `UDS`, which has no such limit"
            )
            raise ValueError(msg)
        sides = [self._side(0, self.time), self._side(1, vocab)]
        return _ReleasedSketch(*sides)

    def _side(self, side: int, n: int) -> "_Side":
        drawn = _drawn(self.seed, side, n, self.rank[side])
        if self.signs is not None:
            self._check_signs(self.signs[side], f"signs[{side}]", n)
            drawn = drawn._replace(signs=np.asarray(self.signs[side]).astype(np.int8).tobytes())
        if self.indices is not None:
            index = np.asarray(self.indices[side])
            if index.min() < 0 or index.max() >= n:
                msg = f"`indices[{side}]` must lie in [0, {n}), got {index.min()} to {index.max()}"
                raise ValueError(msg)
            drawn = drawn._replace(rows=index.astype(np.int32).tobytes())
        return drawn

    @staticmethod
    def _check_indices(given: np.ndarray, name: str, rank: int) -> None:
        if given.shape != (rank,) or given.dtype.kind not in "iu":
            msg = f"`{name}` must be {rank} whole numbers, as `rank` says, got shape {given.shape} of {given.dtype}"
            raise ValueError(msg)

    @staticmethod
    def _check_signs(signs: Any, name: str, n: int) -> None:
        if np.shape(signs) != (n,) or not (np.abs(signs) == 1).all():
            msg = f"`{name}` must be {n} numbers -1 or 1, got {signs!r} of shape {np.shape(signs)}"
            raise ValueError(msg)


def isometric_alpha(published: float, /, *, time: int, vocab: int) -> float:
    r"""Return the alpha of `UDS` that weighs diversity as a published one does in the released code.

    .. math:: \alpha_{\text{isometric}} = \frac{\sqrt{T V}}{2} \alpha_{\text{published}}

    Parameters
    ----------
    published
        As in the paper's tables and scripts.
    time, vocab
        Length T that the released code fills samples to (512), and size V of the vocabulary, padding included:
        152,064 in Qwen2.5-7B, where 1.5e-3 becomes 6.6.

    Returns
    -------
    float
        For ``UDS(alpha=..., length="none", centre="none")``.

    Notes
    -----
    The released projection lengthens by sqrt(n / 2) on each side: its transform is not normalised, and the real part
    keeps half. So one published value is another trade-off for another vocabulary. It is defined here, not with the
    trade-off, because it is a fact about that projection.
    """
    return published * _inflation(time, vocab)


def published_alpha(isometric: float, /, *, time: int, vocab: int) -> float:
    """Return the published alpha, for `Reference`, of an alpha of `UDS`: the inverse of `isometric_alpha`."""
    return isometric / _inflation(time, vocab)


def _inflation(time: int, vocab: int) -> float:
    _options.whole("time", time)
    _options.whole("vocab", vocab)
    return (time * vocab) ** 0.5 / 2


class _Side(NamedTuple):
    """Constants of one side as bytes, hashable: the key under which a head stores its part of the sketch."""

    signs: bytes  # (n,) int8
    rows: bytes  # (r,) int32


@dataclass(frozen=True)
class _ReleasedSketch:
    """The released projection: z = vec(G2 L G1^T), the vocabulary side first."""

    time: _Side
    vocab: _Side

    def __call__(self, logits: Logits, /) -> Array:
        """Sketch of each sample, (batch, ranks)."""
        columns = logits.projection(self)
        xp = array_namespace(columns)
        # the zero rows that fill a sample to `time` add nothing, so the table ends with the sample
        table = constant(self._time_table(columns.shape[1]), like=columns, dtype=columns.dtype)
        return xp.reshape(xp.matrix_transpose(table) @ columns, (columns.shape[0], table.shape[1] * columns.shape[2]))

    def vocabulary(self, source: Head | DenseLogits, /) -> Array:
        """Apply G1 along the vocabulary of `source`: (..., rank)."""
        like, dtype = source.like, source.dtype
        signs, rows = _arrays(self.vocab)
        n = len(signs)
        # Re F[k] = Re F[n - k] for real input: the real FFT has all that is wanted
        index = constant(np.minimum(rows, n - rows).astype(np.int32), like=like)
        turn = constant(signs, like=like, dtype=dtype)
        return frequencies(source, turn, index)[0] * (n / len(rows)) ** 0.5

    def _time_table(self, length: int) -> np.ndarray:
        """Return G2 transposed for rows 0 to `length`: (length, rank)."""
        signs, rows = _arrays(self.time)
        n = len(signs)
        angle = np.arange(length, dtype=np.int64)[:, None] * rows % n * (2 * np.pi / n)
        return np.cos(angle) * signs[:length, None] * (n / len(rows)) ** 0.5


def _arrays(side: _Side) -> tuple[np.ndarray, np.ndarray]:
    return np.frombuffer(side.signs, dtype=np.int8), np.frombuffer(side.rows, dtype=np.int32).astype(np.int64)


@functools.lru_cache(maxsize=8)
def _drawn(seed: int, side: int, n: int, rank: int) -> _Side:
    generator = _random.generator(seed, Stream.RELEASED, side)
    signs = generator.integers(0, 2, size=n, dtype=np.int8) * 2 - 1
    return _Side(signs.tobytes(), generator.integers(0, n, size=rank, dtype=np.int32).tobytes())
