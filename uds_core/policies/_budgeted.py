"""Budget options that policies share."""

import warnings
from dataclasses import dataclass

from .._array import Array, array_namespace
from ..candidates import Candidates, Features
from ..choice import Budget, with_score


@dataclass(frozen=True, kw_only=True, eq=False)
class Budgeted:
    """Policy that keeps a fraction of the candidates, or a number of them.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`. None given: all candidates are kept, and `choose` warns.
    """

    keep: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        _ = self.budget  # checks its options

    @property
    def budget(self) -> Budget:
        """How much is kept."""
        return Budget(keep=self.keep, count=self.count)

    def warn_without_budget(self) -> None:
        """Warn the caller of `choose` where no budget is given, so that all candidates are kept."""
        if self.budget == Budget():
            msg = (
                f"{type(self).__name__} has no budget, so all candidates are kept: give `keep` (a fraction of the "
                "samples) or `count` (a number of them); `keep=1.0` keeps all without this warning"
            )
            warnings.warn(msg, UserWarning, stacklevel=3)

    def scored_only(self, indices: Array, scores: Array, /) -> Array:
        """Return `indices` (k,) without samples whose score is NaN; warn the caller of `choose` of those left out."""
        sound = with_score(indices, indices, scores)
        if sound.shape[0] < indices.shape[0]:
            msg = (
                f"{type(self).__name__} keeps fewer samples than its budget allows, as too few have a score: training "
                "on one whose score is NaN would destroy the model; look for logits that are not finite (overflow in "
                "float16, a learning rate that is too high) and for recorded losses that are missing"
            )
            warnings.warn(msg, UserWarning, stacklevel=3)
        return sound


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBudgeted(Budgeted):
    """Policy whose budget may also be a number of scored rows, `tokens`, or of all tokens, `processed`: see `Budget`.

    With a budget of `processed` tokens its features have `size` (batch,), as `sizes` returns it.
    """

    tokens: int | None = None
    processed: int | None = None

    @property
    def budget(self) -> Budget:
        """How much is kept."""
        return Budget(keep=self.keep, count=self.count, tokens=self.tokens, processed=self.processed)

    @property
    def reads_sizes(self) -> bool:
        """Whether the numbers of all tokens of samples are read."""
        return self.processed is not None

    def sizes(self, candidates: Candidates, /) -> Features:
        """Return `size` (batch,), the number of all tokens of each sample, where it is read."""
        return {"size": candidates.lengths("tokens")} if self.reads_sizes else {}

    def counted(self, features: Features, /) -> Array:
        """Return the tokens (batch,) that the budget counts, 0 for empty samples; `features` have `length`, `size`."""
        length = features["length"]
        if self.processed is None:
            return length
        xp = array_namespace(length)
        return xp.where(length > 0, features["size"], xp.zeros_like(length))
