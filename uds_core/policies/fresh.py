"""Random selection that puts near-duplicates last."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _options, _random
from .._array import Array, accumulation_dtype, array_namespace, constant, device
from .._random import Stream
from ..candidates import Features, Selection
from ..choice import top_k
from ..memory import Memory, distances, storable
from ..policy import Needs
from ..registry import register
from ..tradeoff import median
from ._budgeted import TokenBudgeted
from ._sketched import Sketched, check_fingerprint

_BLOCK = 512  # candidates whose distances to all others are taken at a time


class FreshState(NamedTuple):
    """State of Fresh."""

    memory: Memory
    step: int
    recipe: int

    def check(self, template: "FreshState", /) -> None:
        """Raise where the restored sketches cannot be compared with new ones."""
        check_fingerprint(self.recipe, template.recipe)


@register("fresh")
@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh(Sketched, TokenBudgeted):
    r"""Keep a random part, near-duplicates of recently chosen samples last.

    .. math:: s_i = u_i - \left[\, d_i < c\, \tilde d \,\right]

    u_i: uniform in [0, 1). d_i: distance of the sample's sketch to the nearest sketch that was recently chosen, or that
    comes before it in the pool. The bracket is 1 where d_i is less than c times the median distance between samples of
    the pool, else 0.

    Parameters
    ----------
    keep, count, tokens
        The budget; see `Budget`.
    threshold
        c: a sample nearer than this fraction of the median distance counts as a near-duplicate.
    rows, length, centre, memory, sketch, dim
        As in `UDS`.
    seed
        Seed of the sketch and of the draws.

    Notes
    -----
    On data without near-duplicates this is `Random`, at the price of a forward pass. The rule is the result of one
    search, and was tested on other seeds and tasks: docs/pages/evidence.md. `examine` costs O(batch time width dim)
    through a prepared head, `choose` O(batch (memory + batch) dim), and O(batch (memory + 512)) of memory.
    Source: this library; the sketch and the memory are those of UDS.
    """

    needs = Needs()
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.number("threshold", self.threshold, "a number of at least 0", fits=lambda c: 0 <= c < float("inf"))

    def init(self, features: Features, /) -> FreshState:
        """Return an empty memory, and step 0."""
        sketch = features["sketch"]
        return FreshState(Memory.empty(self.memory, sketch.shape[1], like=sketch), 0, self.fingerprint())

    def choose(
        self, state: FreshState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, FreshState]:
        """Choose by random scores, less 1 for near-duplicates; then add the chosen to the memory."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        sketch, length = features["sketch"], features["length"]
        xp = array_namespace(sketch)
        finite = xp.all(xp.isfinite(sketch), axis=1)
        able = finite & (length > 0)
        points = xp.where(able[:, None], sketch, xp.zeros_like(sketch))
        near, median_distance = _nearest(points, able, state.memory), _median_distance(points, able)
        generator: Any = _random.generator(self.seed, Stream.RANDOM, state.step)
        drawn = constant(generator.random(sketch.shape[0], dtype=np.float32), like=sketch, dtype=sketch.dtype)
        duplicate = xp.astype(near < float(self.threshold) * median_distance, sketch.dtype)
        scores = xp.where(finite, drawn - duplicate, xp.full_like(drawn, xp.nan))
        indices = top_k(scores, length, budget=self.budget, groups=groups)
        indices = self.scored_only(indices, scores)
        selection = Selection(indices=indices, scores=scores, parts={"random": drawn, "near_duplicate": duplicate})
        memory = state.memory.push(storable(sketch, indices, able))
        return selection, FreshState(memory, state.step + 1, state.recipe)


def _nearest(sketch: Array, able: Array, memory: Memory) -> Array:
    """Return each sample's distance (batch,) to the nearest sketch that is remembered or comes before it.

    Infinite where there is none, and for samples not `able` (batch,). Taken in blocks of the pool: whole data sets are
    scored as one pool.
    """
    xp = array_namespace(sketch)
    batch = sketch.shape[0]
    place = constant(np.arange(batch, dtype=np.int32), like=sketch)
    near = xp.full(sketch.shape[:1], xp.inf, dtype=accumulation_dtype(sketch), device=device(sketch))
    for start in range(0, batch, _BLOCK):
        here = slice(start, min(start + _BLOCK, batch))
        before = (place[None, here] < place[:, None]) & able[None, here]
        apart = distances(sketch, sketch[here, ...])
        near = xp.minimum(near, xp.min(xp.where(before, apart, xp.full_like(apart, xp.inf)), axis=1))
    if batch and memory.size:
        near = xp.minimum(near, xp.min(distances(sketch, memory.filled), axis=1))
    return xp.where(able, near, xp.full_like(near, xp.inf))


def _median_distance(sketch: Array, able: Array) -> Array:
    """Return the median distance () between candidates that are `able` (batch,); 0 where there are fewer than two.

    Of a pool longer than a block, evenly spaced candidates stand for all.
    """
    xp = array_namespace(sketch)
    batch = sketch.shape[0]
    if not batch:
        return xp.zeros((), dtype=sketch.dtype, device=device(sketch))
    some = [i * batch // min(batch, _BLOCK) for i in range(min(batch, _BLOCK))]
    index = constant(np.asarray(some, dtype=np.int32), like=sketch)
    sketch, able = xp.take(sketch, index, axis=0), xp.take(able, index, axis=0)
    itself = xp.eye(len(some), dtype=sketch.dtype, device=device(sketch)) > 0
    pairs = able[None, :] & able[:, None] & ~itself
    apart = distances(sketch, sketch)
    return median(xp.reshape(xp.where(pairs, apart, xp.full_like(apart, xp.nan)), (-1,)))
