"""What policies share that keep the highest of one feature and remember nothing."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._array import Array
from ..choice import Budget, top_k
from ..policy import Features, Selection

__all__ = ["Ranked", "Stateless"]


class Stateless(NamedTuple):
    """The state of a policy that remembers nothing."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Keep the candidates with the highest `score_name`, a feature that `examine` of the subclass writes.

    Parameters
    ----------
    keep, count
        Share in (0, 1], or number, of the candidates that are kept; default: all.
    """

    score_name: ClassVar[str]
    keep: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """How many are kept."""
        return Budget(keep=self.keep, count=self.count)

    def init(self, features: Features, /) -> Stateless:
        """Nothing to remember."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """The score is the feature."""
        scores = features[self.score_name]
        indices = top_k(scores, features["length"], budget=self.budget, groups=groups)
        return Selection(indices=indices, scores=scores, parts={self.score_name: scores}), Stateless()
