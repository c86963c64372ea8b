"""What every policy is measured by: the held-out loss, and answers where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .encode import Collator, Example
from .likelihood import Likelihood

__all__ = ["HeldOut", "Measured"]

Answers = Callable[[Any], list[bool]]
"""Of a model, whether each held-out answer is right."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one model did with each held-out example, in their order."""

    losses: list[float]
    """Summed over the tokens of the completion."""
    tokens: list[int]
    """Their number."""
    answers: dict[str, list[bool]]
    """Metric -> whether the answer is right."""

    @property
    def loss(self) -> float:
        r"""Token-mean negative log-likelihood, \sum_i \ell_i / \sum_i n_i."""
        return sum(self.losses) / sum(self.tokens)

    def share(self, metric: str, /) -> float | None:
        """Of the answers, how many are right; None where it was not asked for."""
        return fmean(self.answers[metric]) if metric in self.answers else None


class HeldOut:
    """Measures a model on held-out examples.

    Parameters
    ----------
    examples
        At least one.
    collator
        Pads them.
    answers
        Metric -> what tells which answers are right.
    batch_size
        Examples a forward pass.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        /,
        *,
        collator: Collator,
        answers: Mapping[str, Answers] | None = None,
        batch_size: int = 16,
    ) -> None:
        self._likelihood = Likelihood(examples, collator=collator, batch_size=batch_size)
        self._answers = answers or {}

    def __call__(self, model: Any, /) -> float:
        """The loss of `model` alone."""
        return self.measure(model).loss

    def measure(self, model: Any, /) -> Measured:
        """All of it, of `model` in evaluation mode; its modes are restored."""
        return Measured(
            losses=self._likelihood(model),
            tokens=self._likelihood.tokens,
            answers={metric: right(model) for metric, right in self._answers.items()},
        )
