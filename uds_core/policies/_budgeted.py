"""Budget options that policies share."""

import warnings
from dataclasses import dataclass

from ..choice import Budget


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


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBudgeted(Budgeted):
    """Policy whose budget may also be a number of scored rows, `tokens`; see `Budget`."""

    tokens: int | None = None

    @property
    def budget(self) -> Budget:
        """How much is kept."""
        return Budget(keep=self.keep, count=self.count, tokens=self.tokens)
