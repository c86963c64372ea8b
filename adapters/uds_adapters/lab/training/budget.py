"""Budgets that end a training run, and the learning rate that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import LabError

__all__ = ["Kind", "RunBudget", "learning_rate"]

Kind = Literal["candidates", "samples", "tokens", "processed", "seconds"]

_KINDS = get_args(Kind)
_PASSES = 3  # forward passes that a training pass counts for
_WARM_UP = 0.05  # fraction of the budget over which the learning rate rises


@dataclass(frozen=True, kw_only=True)
class RunBudget:
    """How much a run may spend; the run ends when it is spent, and the learning rate has then fallen to 0.

    Parameters
    ----------
    kind
        `candidates`: all runs see the same candidates. `samples`, `tokens` (with loss): all train on equally many,
        whatever number of candidates that takes. `processed`: all do equal work, in tokens that run through the model,
        those of prompts included; one that is scored counts a third of one that is trained. `seconds`: all train
        equally long, scoring included.
    amount
        Of that kind, greater than 0.
    """

    kind: Kind
    amount: float

    @classmethod
    def of(cls, kind: str, /, *, order: Sequence[int], train: Sequence[Any], keep: float) -> RunBudget:
        """Return what random selection would spend on the candidates `order`; seconds are not known in advance."""
        if kind == "candidates":
            return cls(kind=kind, amount=len(order))
        if kind == "samples":
            return cls(kind=kind, amount=keep * len(order))
        if kind == "tokens":
            from ...batches import IGNORE

            trained = sum(label != IGNORE for index in order for label in train[index]["labels"][1:])
            return cls(kind=kind, amount=keep * trained)
        if kind == "processed":
            return cls(kind=kind, amount=keep * sum(len(train[index]["input_ids"]) for index in order))
        msg = f"`budget` {kind!r} needs an amount: seconds=120 trains for two minutes"
        raise LabError(msg)

    @classmethod
    def parse(cls, text: str, /) -> tuple[Kind, float | None]:
        """Return kind and amount of ``tokens``, ``tokens=50000`` or ``seconds=120``; None: what random would spend."""
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

    def spent(self, *, candidates: int, samples: int, tokens: Mapping[str, int], seconds: float) -> float:
        """Return the fraction of the budget that a run has spent; from 1 on, the run is over.

        `tokens`: those ``trained``, with loss, and those that were ``forwarded_for_training`` and ``_for_scoring``.
        """
        work = tokens["forwarded_for_training"] + tokens["forwarded_for_scoring"] / _PASSES
        trained = tokens["trained"]
        used = {"candidates": candidates, "samples": samples, "tokens": trained, "processed": work, "seconds": seconds}
        return used[self.kind] / self.amount


def learning_rate(spent: float, /) -> float:
    """Return the fraction of the peak: it rises over the first twentieth of the budget, then falls linearly to 0."""
    return max(0.0, min(spent / _WARM_UP, (1.0 - spent) / (1.0 - _WARM_UP)))
