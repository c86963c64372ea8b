"""Policies that keep the highest of one score, and states without sketches."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._array import Array
from ..candidates import Features, Selection
from ..choice import top_k
from ._budgeted import TokenBudgeted


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
    keep, count, tokens
        The budget; see `Budget`.
    """

    score_name: ClassVar[str]

    def score(self, features: Features, /) -> Array:
        """Return the feature `score_name` (batch,)."""
        return features[self.score_name]

    def init(self, features: Features, /) -> Stateless:
        """Return the empty state."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """Choose by score; `parts` are the features (batch,) and the score."""
        self.warn_without_budget()
        scores, length = self.score(features), features["length"]
        numbers = {name: feature for name, feature in features.items() if name != "length" and feature.ndim == 1}
        indices = top_k(scores, length, budget=self.budget, groups=groups)
        return Selection(indices=indices, scores=scores, parts={**numbers, self.score_name: scores}), Stateless()
