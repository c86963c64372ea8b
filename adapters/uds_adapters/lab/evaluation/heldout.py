"""Held-out loss, and held-out answers where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from ...batches import IGNORE
from ...scoring.scorer import evaluating
from ..data.encoding import Collator, Example
from .logit_blocks import LogitBlocks

__all__ = ["HeldOut", "Likelihood", "Measured"]

Answers = Callable[[Any], list[bool]]
"""Of a model, whether each held-out answer is right."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Losses and answers of one model on each held-out example, in order."""

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

    def fraction(self, metric: str, /) -> float | None:
        """Return the fraction of right answers; None where the metric was not asked for."""
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
        """Return the loss of `model` alone."""
        return self.measure(model).loss

    def measure(self, model: Any, /) -> Measured:
        """Return loss and answers of `model` in evaluation mode; its modes are restored."""
        return Measured(
            losses=self._likelihood(model),
            tokens=self._likelihood.tokens,
            answers={metric: right(model) for metric, right in self._answers.items()},
        )


class Likelihood:
    """Summed negative log-likelihoods of the completions of examples.

    Parameters
    ----------
    examples
        Batched by length, so that little is spent on padding; results come in the order in which they were given.
    collator
        Pads them.
    batch_size
        Examples a forward pass.

    Attributes
    ----------
    tokens
        Number of tokens with loss in each example.
    """

    def __init__(self, examples: Sequence[Example], /, *, collator: Collator, batch_size: int = 16) -> None:
        self._order = sorted(range(len(examples)), key=lambda place: len(examples[place]["input_ids"]))
        chunks = [self._order[i : i + batch_size] for i in range(0, len(self._order), batch_size)]
        self._examples, self._chunks, self._collator = examples, chunks, collator
        self.tokens = [sum(label != IGNORE for label in example["labels"][1:]) for example in examples]

    @torch.no_grad()
    def __call__(self, model: Any, /) -> list[float]:
        """Return one number an example, of `model` in evaluation mode; its modes are restored."""
        device = next(model.parameters()).device
        blocks = LogitBlocks(model)
        found: list[float] = []
        with evaluating(model):
            for chunk in self._chunks:
                batch = self._collator([self._examples[place] for place in chunk])
                scored = batch["labels"][:, 1:] != IGNORE
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")}
                losses = torch.zeros(scored.shape, dtype=torch.float64, device="cpu")
                losses[scored] = blocks.losses(inputs).cpu().double()
                found += losses.sum(1).tolist()
        return [value for _, value in sorted(zip(self._order, found, strict=True))]
