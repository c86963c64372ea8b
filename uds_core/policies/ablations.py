"""Ablations of UDS: each of its terms alone."""

from dataclasses import dataclass
from typing import Any, ClassVar

from .._array import Array, array_namespace
from ..candidates import Candidates, Features, Selection
from ..logits import Logits
from ..memory import Distance, Memory, finite_points
from ..policy import Needs
from ..registry import register
from ..spectrum import NuclearMethod, frobenius_norm, nuclear_norm
from ._ranked import Ranked
from ._scored import Scored, with_chosen
from ._sketched import (
    MEMORY_DISTANCE,
    Length,
    Rows,
    Sketched,
    SketchState,
    check_words,
    length_divisor,
    memory_distance,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Norm(Ranked):
    """Policy that scores by a norm of the logits, with the options of UDS."""

    needs = Needs()
    rows: Rows = "labels"
    length: Length = "sqrt"
    centre: Any = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return the norm, and `length`: scored rows."""
        logits, length = candidates.logits.centred(self.centre), candidates.lengths(self.rows)
        norm = self.norm(logits, candidates.scored(self.rows))
        score = norm / length_divisor(length, self.length, dtype=logits.dtype)
        return {self.score_name: score, "length": length, **self.sizes(candidates)}

    def norm(self, logits: Logits, mask: Array, /) -> Array:
        """Return the norm (batch,) of the rows in `mask`."""
        raise NotImplementedError


@register("frobenius")
@dataclass(frozen=True, kw_only=True, eq=False)
class Frobenius(_Norm):
    r"""Keep the samples with the largest logits: the control that shows what the nuclear norm adds to size.

    .. math:: s_i = \|L_i\|_F

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    rows, length, centre
        As in `UDS`.

    Notes
    -----
    O(batch time width min(time, width)) through a prepared head; no spectrum.
    """

    score_name: ClassVar[str] = "frobenius"

    def norm(self, logits: Logits, mask: Array, /) -> Array:
        """Return the Frobenius norm (batch,)."""
        return frobenius_norm(logits, mask=mask)


@register("nuclearonly")
@dataclass(frozen=True, kw_only=True, eq=False)
class NuclearOnly(_Norm):
    r"""Keep the samples with the highest utility: UDS without diversity, as in the paper's ablation.

    .. math:: s_i = \|L_i\|_*

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    rows, length, centre, method
        As in `UDS`.

    Notes
    -----
    Chooses what ``UDS(alpha=0.0)`` chooses, and computes no sketch. O(batch time width min(time, width)) through a
    prepared head. Source: UDS, arXiv 2510.16882.
    """

    score_name: ClassVar[str] = "utility"
    method: NuclearMethod = "auto"

    def norm(self, logits: Logits, mask: Array, /) -> Array:
        """Return the nuclear norm (batch,)."""
        return nuclear_norm(logits, mask=mask, method=self.method)


@register("diversityonly")
@dataclass(frozen=True, kw_only=True, eq=False)
class DiversityOnly(Sketched):
    r"""Keep the samples that are farthest from recently chosen ones: UDS without utility, as in the paper's ablation.

    .. math:: s_i = \frac1{|N_i|} \sum_{j \in N_i} \|z_i - q_j\|_2

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    rows, length, centre, memory, distance, sketch, dim, seed
        As in `UDS`.

    Notes
    -----
    Before the first choice nothing is remembered, and all scores are 0: the first samples are chosen, in their order.
    `examine` costs O(batch time width dim) through a prepared head, `choose` O(batch memory dim).
    Source: UDS, arXiv 2510.16882.
    """

    needs = Needs(divisible=True)
    distance: Distance = "nearest"

    def init(self, features: Features, /) -> SketchState:
        """Return an empty memory."""
        sketch = features["sketch"]
        return SketchState(Memory.empty(self.memory, sketch.shape[1], like=sketch), self.fingerprint())

    def prepare(self, state: SketchState | None, features: Features, rows: slice, /) -> Features:
        """Return `memory_distance` of the candidates `rows`; nothing while the memory is empty."""
        if state is None or not state.memory.size:
            return {}
        return {MEMORY_DISTANCE: memory_distance(features, state.memory, self.distance, rows=rows)}

    def choose(
        self, state: SketchState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, SketchState]:
        """Choose by distance to the memory; then add the chosen to it."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        sketch, length = features["sketch"], features["length"]
        xp = array_namespace(sketch)
        finite = finite_points(sketch)
        scores = memory_distance(features, state.memory, self.distance)
        scores = xp.where(finite, scores, xp.full_like(scores, xp.nan))
        scored = Scored.of(features, scores, parts={"diversity": scores}, groups=groups, storable=finite & (length > 0))
        indices = self.scored_only(scored.best(self.budget), scored.numbers)
        memory = with_chosen(state.memory, sketch, indices, scored.host["storable"])
        return scored.selection(indices), SketchState(memory, state.recipe)
