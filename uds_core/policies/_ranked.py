"""What policies share that keep the highest of one number and remember nothing."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._array import Array
from ..candidates import Features, Selection
from ..choice import Budget, top_k

__all__ = ["Ranked", "Stateless"]


class Stateless(NamedTuple):
    """The state of a policy that remembers nothing."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Keep the candidates with the highest score: a feature named `score_name`, or what `score` makes of features.

    Parameters
    ----------
    keep, count, tokens
        Share in (0, 1], or number, of the candidates that are kept, or rows with loss (`Budget`); default: all.
    """

    score_name: ClassVar[str]
    keep: float | None = None
    count: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """How many are kept."""
        return Budget(keep=self.keep, count=self.count, tokens=self.tokens)

    def score(self, features: Features, /) -> Array:
        """(batch,) the feature itself."""
        return features[self.score_name]

    def init(self, features: Features, /) -> Stateless:
        """Nothing to remember."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """The score, with the numbers that it was made of as its parts."""
        scores, length = self.score(features), features["length"]
        numbers = {name: feature for name, feature in features.items() if name != "length" and feature.ndim == 1}
        indices = top_k(scores, length, budget=self.budget, groups=groups)
        return Selection(indices=indices, scores=scores, parts={**numbers, self.score_name: scores}), Stateless()
