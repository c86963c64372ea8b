"""Utility-Diversity Sampling."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from .._array import Array, array_namespace, constant, to_numpy
from ..choice import Budget, top_k
from ..logits import Logits
from ..memory import Memory, diversity
from ..policy import Candidates, Features, Selection, register
from ..sketch import FourierSketch, PairedSketch, Sketch
from ..spectrum import NuclearMethod, nuclear_norm
from ..tradeoff import Spreads, combine

__all__ = ["UDS", "UDSState"]

_FOURIER_TIME = 512  # the paper's length of the time side
_FOURIER_TIME_RANK = 8  # and the paper's rank of it


class UDSState(NamedTuple):
    """What UDS remembers between choices."""

    memory: Memory
    spreads: Spreads


@register("uds")
@dataclass(frozen=True, kw_only=True, eq=False)
class UDS:
    r"""Keep the samples with the best utility and diversity.

    .. math:: s_i = \|L_i\|_* + \alpha \frac1m \sum_{j=1}^m \|z_i - q_j\|_2

    L_i: the sample's logits matrix, scored rows only. z_i: its sketch. q_j: the sketches of samples chosen lately.

    Parameters
    ----------
    keep, count
        Share in (0, 1], or number, of the candidates that are kept; default: all.
    alpha
        Factor on diversity, a pure number; ``"auto"`` puts both terms in units of their spread over past candidates, so
        that one setting travels between models.
    weight
        Under ``"auto"``, the pull of diversity: 1 = both count the same.
    rows
        ``"labels"``: rows whose target carries loss. ``"tokens"``: all that are not padding.
    length
        Utility and sketch are divided by 1 (``"none"``), by the root of the number of scored rows (``"sqrt"``), or by
        that number (``"mean"``). The raw nuclear norm grows with length.
    centre
        Taken out of the logits first: ``"none"``; ``"row"``, each row's mean over the vocabulary, which no prediction
        depends on; or an array, a fixed hidden row (width,) (of logits, (vocab,), where those are dense).
    memory
        Number of chosen samples remembered.
    sketch, dim
        ``"paired"`` or ``"fourier"`` (8 time rows), and the numbers in a sketch.
    method
        How the nuclear norm is computed; see `nuclear_norm`.
    seed
        Seed of the sketch.

    Notes
    -----
    ``alpha=0.0, length="none", centre="none"`` is pure nuclear-norm selection. Through a prepared head, `examine` costs
    O(batch time width (width + dim)) and never makes the logits; `choose` costs O(batch memory dim).
    Source: UDS, arXiv 2510.16882.
    """

    needs_logits: ClassVar[bool] = True
    keep: float | None = None
    count: int | None = None
    alpha: float | Literal["auto"] = "auto"
    weight: float = 1.0
    rows: Literal["labels", "tokens"] = "labels"
    length: Literal["none", "sqrt", "mean"] = "sqrt"
    centre: Any = "row"
    memory: int = 1024
    sketch: Literal["paired", "fourier"] = "paired"
    dim: int = 1024
    method: NuclearMethod = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        Budget(keep=self.keep, count=self.count)
        _one_of("rows", self.rows, "labels", "tokens")
        _one_of("length", self.length, "none", "sqrt", "mean")
        _one_of("sketch", self.sketch, "paired", "fourier")
        _one_of("method", self.method, "auto", "svd", "eigh")
        if isinstance(self.centre, str):
            _one_of("centre", self.centre, "none", "row")
        if self.alpha != "auto" and (isinstance(self.alpha, str) or not self.alpha >= 0):
            msg = f"`alpha` must be 'auto' or a number of at least 0, got {self.alpha!r}"
            raise ValueError(msg)
        for name, value, least in (("weight", self.weight, 0), ("memory", self.memory, 1), ("dim", self.dim, 1)):
            if value < least:
                msg = f"`{name}` must be at least {least}, got {value}"
                raise ValueError(msg)

    def examine(self, candidates: Candidates, /) -> Features:
        """`utility` (batch,), `sketch` (batch, dim) and `length` (batch,) of each candidate."""
        mask = candidates.scored(self.rows)
        logits = candidates.logits.centred(self.centre)
        length = candidates.lengths(self.rows)
        divisor = self._divisor(length, logits)
        utility = nuclear_norm(logits, mask=mask, method=self.method) / divisor
        sketch = self._recipe(logits)(logits, mask=mask) / divisor[:, None]
        return {"utility": utility, "sketch": sketch, "length": length}

    def init(self, features: Features, /) -> UDSState:
        """An empty memory, and no candidates seen."""
        sketch = features["sketch"]
        memory = Memory.empty(self.memory, sketch.shape[1], like=sketch)
        return UDSState(memory, Spreads.empty(like=features["utility"]))

    def choose(
        self, state: UDSState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, UDSState]:
        """Scores are utility + alpha x diversity; only the chosen enter the memory, and only after the choice."""
        state = self.init(features) if state is None else state
        utility, length = features["utility"], features["length"]
        far = diversity(features["sketch"], state.memory)
        spreads = state.spreads.seen(utility, far if state.memory.size else None)
        combined = combine(utility, far, alpha=self.alpha, weight=self.weight, spreads=spreads)
        indices = top_k(combined.scores, length, budget=Budget(keep=self.keep, count=self.count), groups=groups)
        selection = Selection(
            indices=indices,
            scores=combined.scores,
            parts={"utility": utility, "diversity": far},
            metrics={"alpha": combined.alpha},
        )
        memory = state.memory.push(_remembered(features["sketch"], indices, combined.scores, length))
        return selection, UDSState(memory, spreads)

    def _recipe(self, logits: Logits) -> Sketch:
        vocab = logits.shape[2]
        if self.sketch == "paired":
            return PairedSketch(time=_FOURIER_TIME, vocab=vocab, dim=self.dim, seed=self.seed)
        rank = (min(_FOURIER_TIME_RANK, self.dim), max(1, self.dim // _FOURIER_TIME_RANK))
        return FourierSketch(time=_FOURIER_TIME, vocab=vocab, rank=rank, seed=self.seed)

    def _divisor(self, length: Array, logits: Logits) -> Array:
        xp = array_namespace(length)
        length = xp.astype(length, logits.dtype, copy=False)
        length = xp.where(length > 0, length, xp.ones_like(length))
        powers = {"none": 0.0, "sqrt": 0.5, "mean": 1.0}
        return length ** powers[self.length]


def _remembered(sketch: Array, indices: Array, scores: Array, length: Array) -> Array:
    """The chosen sketches, best first, without those of empty and non-finite samples."""
    xp = array_namespace(sketch)
    sound = xp.isfinite(scores) & xp.all(xp.isfinite(sketch), axis=1) & (length > 0)
    chosen = to_numpy(indices)[to_numpy(xp.take(sound, indices))]
    return xp.take(sketch, constant(chosen.astype(np.int32), like=sketch), axis=0)


def _one_of(name: str, value: str, *known: str) -> None:
    if value not in known:
        msg = f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}"
        raise ValueError(msg)
