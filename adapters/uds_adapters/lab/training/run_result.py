"""Result of one training run."""

from __future__ import annotations

from dataclasses import dataclass

from ..evaluation.heldout import Measured

__all__ = ["Evaluation", "RunResult"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The held-out loss at one step of a run."""

    step: int
    samples: int
    """Samples trained on so far."""
    tokens: int
    """Tokens trained on so far."""
    seconds: float
    """Seconds of training so far, without evaluations."""
    loss: float
    accuracy: float | None = None
    """Of multiple choice; None where it was not asked for."""
    exact_match: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What one run did, and what it cost."""

    policy: str
    seed: int
    steps: int
    candidates: int
    samples: int
    """Samples trained on; one that was chosen twice counts twice."""
    tokens: dict[str, int]
    seconds: dict[str, float]
    """`scoring`, `forward_backward` and `rest`, which add up to `total`; `evaluation` and `preparation` are on top."""
    evaluations: list[Evaluation]
    """Empty where nothing is held out."""
    selected: list[list[int]]
    """Of each step, the indices into the training data set."""
    measured: Measured | None = None
    """The last evaluation, example by example."""
    correlation: float | None = None
    """Rank correlation of predicted with exact scores at the end; None where none are predicted, or it is not known."""
