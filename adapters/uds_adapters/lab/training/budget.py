"""What runs have in common, whatever they choose: a number of candidates, samples, tokens or seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from ..errors import LabError

if TYPE_CHECKING:
    from .recording_trainer import RecordingTrainer

__all__ = ["Kind", "RunBudget", "learning_rate"]

Kind = Literal["candidates", "samples", "tokens", "seconds"]

_KINDS = get_args(Kind)
_WARM_UP = 0.05  # of the budget: the learning rate rises


@dataclass(frozen=True, kw_only=True)
class RunBudget:
    """How much a run may spend; when it is spent, the run ends, and the learning rate has fallen to 0.

    Parameters
    ----------
    kind
        `candidates`: all runs see the same candidates. `samples`, `tokens` (with loss): all train on as many, however
        many candidates that takes. `seconds`: all train as long, scoring included.
    amount
        Of that kind, more than 0.
    """

    kind: Kind
    amount: float

    @classmethod
    def of(cls, kind: str, /, *, order: Sequence[int], train: Sequence[Any], keep: float) -> RunBudget:
        """What choosing by chance would spend on the candidates `order`; seconds are not known beforehand."""
        if kind == "candidates":
            return cls(kind=kind, amount=len(order))
        if kind == "samples":
            return cls(kind=kind, amount=keep * len(order))
        if kind == "tokens":
            from ...batches import IGNORE

            trained = sum(label != IGNORE for index in order for label in train[index]["labels"][1:])
            return cls(kind=kind, amount=keep * trained)
        msg = f"`budget` {kind!r} needs an amount: seconds=120 trains for two minutes"
        raise LabError(msg)

    @classmethod
    def parse(cls, text: str, /) -> tuple[Kind, float | None]:
        """Kind and amount of ``tokens``, ``tokens=50000`` or ``seconds=120``; no amount: what chance would spend."""
        kind, given, number = (part.strip() for part in text.partition("="))
        if kind not in _KINDS:
            msg = f"`budget` must be one of {', '.join(_KINDS)}, with or without an amount, got {text!r}"
            raise LabError(msg)
        if not given:
            return cast("Kind", kind), None
        try:
            amount = float(number.replace("_", ""))
        except ValueError:
            amount = 0.0
        if not 0 < amount < float("inf"):
            msg = f"`budget` must have an amount greater than 0, as in {kind}=50000, got {text!r}"
            raise LabError(msg)
        return cast("Kind", kind), amount

    def spent(self, trainer: RecordingTrainer) -> float:
        """The share of it that `trainer` has spent; 1 and more: the run is over."""
        if self.kind == "candidates":
            return trainer.candidates / self.amount
        if self.kind == "samples":
            return trainer.samples / self.amount
        if self.kind == "tokens":
            return trainer.tokens["trained"] / self.amount
        return trainer.clock.elapsed() / self.amount


def learning_rate(spent: float, /) -> float:
    """Of its peak: it rises over the first twentieth of the budget, then falls to 0 at the end."""
    return max(0.0, min(spent / _WARM_UP, (1.0 - spent) / (1.0 - _WARM_UP)))
