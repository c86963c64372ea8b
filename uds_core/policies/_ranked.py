"""Policies that keep the highest of one score, and states without sketches."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._array import Array, array_namespace
from ..candidates import Features, Selection
from ._budgeted import TokenBudgeted
from ._rated import Rating
from ._scored import Scored

_LABEL = "label"  # a score that is given in place of the features that it would be made of


class Stateless(NamedTuple):
    """State of a policy that remembers nothing."""


class StepNumber(NamedTuple):
    """State of a policy that counts its choices."""

    step: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranked(TokenBudgeted):
    """Keep the candidates with the highest score: the feature named `score_name`, or the result of `score`.

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    per_token
        Whether the score is divided by the number of tokens that are processed, prompt included: what a sample is worth
        for its cost.
    """

    score_name: ClassVar[str]
    predictable: ClassVar[bool] = True  # the score depends on a sample's own features alone
    per_token: bool = False

    @property
    def reads_sizes(self) -> bool:
        """Whether the numbers of all tokens of samples are read."""
        return self.per_token or self.processed is not None  # `super()` would break a compiled graph

    def score(self, features: Features, /) -> Array:
        """Return the feature `score_name` (batch,)."""
        return features[self.score_name]

    def label(self, features: Features, /) -> Array:
        """Return the score."""
        return self.score(features)

    def from_label(self, label: Array, sketch: Array, length: Array, /) -> Features:
        """Return features that have the score `label`."""
        return {_LABEL: label, "length": length}

    def rate(self, state: Stateless, features: Features, /) -> Rating:
        """Return the scores; `parts` are the features (batch,) and the score."""
        scores = features[_LABEL] if _LABEL in features else self.score(features)
        if self.per_token:
            xp = array_namespace(scores)
            scores = scores / xp.astype(xp.maximum(features["size"], xp.ones_like(features["size"])), scores.dtype)
        beside = ("length", "size", _LABEL)
        own = {name: feature for name, feature in features.items() if name not in beside and name[0] != "_"}
        numbers = {name: feature for name, feature in own.items() if feature.ndim == 1}
        return Rating(scores, {**numbers, self.score_name: scores}, {}, state)

    def remember(self, state: Stateless, features: Features, indices: Array, /) -> Stateless:
        """Return the empty state."""
        return state

    def init(self, features: Features, /) -> Stateless:
        """Return the empty state."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """Choose by score; `parts` are the features (batch,) and the score."""
        self.warn_without_budget()
        rating = self.rate(Stateless(), features)
        scored = Scored.of(features, rating.scores, parts=rating.parts, groups=groups)
        return scored.selection(self.scored_only(scored.best(self.budget), scored.numbers)), Stateless()
