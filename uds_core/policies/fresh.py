"""Random selection, or that of another policy, that puts near-duplicates last."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from .. import _options, _random
from .._array import Array, accumulation_dtype, array_namespace, at_least_one, device
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..memory import Memory, finite_points
from ..policy import Needs
from ..registry import register
from ..tradeoff import empty_window, median, shift_in
from ._near import highest_similarity, nearest_distance
from ._scored import Inside, Scored, lowered, with_chosen
from ._sketched import Sketched, check_fingerprint, fingerprint
from ._wrapped import Wrapping

By: TypeAlias = Literal["tokens", "logits"]

_WINDOW = 512  # past candidates that the usual nearest distance is taken over


class FreshState(NamedTuple):
    """State of Fresh."""

    policy: Any  # of the policy inside
    memory: Memory
    distances: Array  # (512,) latest distances to the nearest other sample; of n-grams (0,)
    step: int
    recipe: int

    def check(self, template: "FreshState", /) -> None:
        """Raise where the restored sketches cannot be compared with new ones."""
        check_fingerprint(self.recipe, template.recipe)


@register("fresh")
@dataclass(frozen=True, kw_only=True, eq=False)
class Fresh(Sketched, Wrapping):
    r"""Keep a random part, or what another policy keeps, near-duplicates of recently chosen samples last.

    .. math:: s_i = u_i - \left[\, J_i \ge c \,\right]

    u_i: uniform in [0, 1). J_i: the sample's similarity in token n-grams to the most similar sample that was recently
    chosen, or that comes before it in the pool: intersection over union, estimated by sketches. N-grams that more than
    5 % of these samples share, those of a template, are left out.

    Parameters
    ----------
    policy
        A policy, or its text, that chooses among the samples that are no near-duplicates. Default: a random choice.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the policy inside.
    by
        ``"tokens"``: n-grams, without a forward pass. ``"logits"``: sketches of the logits. A sample is then a
        near-duplicate where its distance to the nearest one is at most c times the usual one, the median of the latest
        512 candidates' distances to their nearest.
    threshold
        c, of at least 0.
    memory
        How many chosen samples are remembered.
    rows, length, centre, sketch, dim
        As in `UDS`, for ``by="logits"``.
    seed
        Seed of the draws, and of the sketch of logits.

    Notes
    -----
    On data without near-duplicates this is `Random`, or the policy inside. `choose` costs O(batch (memory + batch)
    dim), dim: that of `ngram_sketch`. With ``by="logits"``, `examine` costs O(batch time width dim) through a prepared
    head. To the policy inside near-duplicates are empty samples: it takes them where nothing else is left, and with a
    budget of `tokens` not at all. Source: this library; the estimate of similarity is MinHash, Broder (1997).
    """

    by: By = "tokens"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.one_of("by", self.by, get_args(By))
        _options.number("threshold", self.threshold, "a number of at least 0", fits=lambda c: 0 <= c < float("inf"))
        inner = None if self.policy is None else self.policy.needs
        if self.by == "logits" and inner is not None and (inner.training_pass or inner.shortlist):
            msg = (
                f"Fresh(by='logits') runs the model on every candidate, which {type(self.policy).__name__} is there to "
                "avoid: use by='tokens'"
            )
            raise ValueError(msg)

    @property
    def needs(self) -> Needs:
        """N-grams or logits, and what the policy inside needs."""
        if self.by == "tokens":
            return self.wrapping(ngrams=True, divisible=True)
        return self.wrapping(logits=True, divisible=True)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `ngrams` or `sketch` (batch, dim), `length` (batch,), and the features of the policy inside."""
        own = {"ngrams": candidates.ngrams} if self.by == "tokens" else Sketched.examine(self, candidates)
        inside = self.examine_inside(candidates)
        if self.by == "logits" and "sketch" in inside:
            msg = f"Fresh(by='logits') cannot hold {type(self.policy).__name__}, which has sketches: use by='tokens'"
            raise ValueError(msg)
        return {"length": candidates.lengths(self.rows), **own, **inside, **self.sizes(candidates)}

    def init(self, features: Features, /) -> FreshState:
        """Return an empty memory, and step 0."""
        own = self._own(features)
        recipe = self.fingerprint() if self.by == "logits" else fingerprint(self.by)
        window = own[:0, 0] if self.by == "tokens" else empty_window(like=_wide(own), window=_WINDOW)
        inside = self.init_inside(features)
        return FreshState(inside, Memory.empty(self.memory, own.shape[1], like=own), window, 0, recipe)

    def prepare(self, state: FreshState | None, features: Features, rows: slice, /) -> Features:
        """Return how near the candidates `rows` are to others, and what the policy inside prepares."""
        state = self.init(features) if state is None else state
        own, able, _ = self._able(features)
        return {self._nearness: self._near(state, own, able, rows), **super().prepare(state, features, rows)}

    def choose(
        self, state: FreshState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, FreshState]:
        """Choose with near-duplicates last; then add the chosen to the memory."""
        if self.needs.budget:
            self.warn_without_budget()
        state = self.init(features) if state is None else state
        own, able, finite = self._able(features)
        xp = array_namespace(own)
        near = features[self._nearness] if self._nearness in features else self._near(state, own, able)
        duplicate, near, state = self._compare(state, near, able)
        flags = xp.astype(duplicate, features["length"].dtype)
        number = xp.sum(xp.astype(able, flags.dtype))
        share = xp.sum(flags) / at_least_one(number)
        parts, metrics = {"near_duplicate": flags, **near}, {"near_duplicates": share}
        beside = {"able": able, "finite": finite, **parts, **metrics}
        if self.policy is None:
            inside = self._draw(state.step, features, duplicate, groups=groups, beside=beside)
        else:
            inside = self.choose_inside(state.policy, features, duplicate | ~finite, groups=groups, beside=beside)
            state = state._replace(policy=inside.state)
        scores, indices = inside.scores, inside.selection.on_host().indices
        if self.by == "logits":
            scores = np.where(inside.beside["finite"], scores, scores.dtype.type(np.nan))
            indices = self.scored_only(indices, scores)
        memory = with_chosen(state.memory, own, indices, inside.beside["able"])
        selection = inside.selected(scores=scores, indices=indices, parts=parts, metrics=metrics)
        return selection, state._replace(memory=memory, step=state.step + 1)

    def _own(self, features: Features) -> Array:
        return features["ngrams" if self.by == "tokens" else "sketch"]

    @property
    def _nearness(self) -> str:
        """The feature that `prepare` adds."""
        return "near_similarity" if self.by == "tokens" else "near_distance"

    def _able(self, features: Features) -> tuple[Array, Array, Array]:
        """Return what samples are compared by, which are (batch,), and which have a finite sketch."""
        own, length = self._own(features), features["length"]
        finite = finite_points(own) if self.by == "logits" else length >= 0
        return own, finite & (length > 0), finite

    def _near(self, state: FreshState, own: Array, able: Array, rows: slice = slice(None)) -> Array:
        """Return the similarity or the distance to the nearest sample, of the candidates `rows`."""
        if self.by == "tokens":
            return highest_similarity(own, able, state.memory, rows=rows)
        xp = array_namespace(own)
        return nearest_distance(xp.where(able[:, None], own, xp.zeros_like(own)), able, state.memory, rows=rows)

    def _compare(self, state: FreshState, near: Array, able: Array) -> tuple[Array, dict[str, Array], FreshState]:
        """Return which candidates are near-duplicates, the similarities, and the state with their distances."""
        if self.by == "tokens":
            return able & (near >= float(self.threshold)), {"similarity": near}, state
        window = shift_in(state.distances, near)
        # of exact copies alone the usual distance is 0, too
        duplicate = near <= float(self.threshold) * median(window)
        return duplicate, {}, state._replace(distances=window)

    def _draw(
        self, step: int, features: Features, duplicate: Array, /, *, groups: Array | None, beside: Mapping[str, Array]
    ) -> Inside:
        """Choose at random, near-duplicates last."""
        host = Scored.of(features, features["length"], groups=groups, duplicate=duplicate, **beside)
        generator: Any = _random.generator(self.seed, Stream.RANDOM, step)
        drawn = generator.random(host.length.shape[0], dtype=np.float32).astype(host.length.dtype, copy=False)
        scores = np.where(host.host["finite"], lowered(drawn, host.host["duplicate"]), drawn.dtype.type(np.nan))
        scored = host.rescored(scores, parts={"random": drawn})
        return Inside(scored.selection(scored.best(self.budget)), None, scores, host.host)


def _wide(sketch: Array) -> Array:
    xp = array_namespace(sketch)
    return xp.zeros((1,), dtype=accumulation_dtype(sketch), device=device(sketch))
