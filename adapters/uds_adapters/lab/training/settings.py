"""Settings of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import LabError
from .budget import RunBudget

__all__ = ["METRICS", "Settings", "check_numbers"]

METRICS = ("accuracy", "exact_match")
_EVALUATIONS = 8  # a run, where nothing else is asked for


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all runs of a comparison share.

    Parameters
    ----------
    keep
        Share of the candidates that is trained on.
    batch_size
        Candidates a step.
    steps
        Optimizer steps; or None, and `epochs` passes over the training data.
    budget
        What all runs spend alike: ``candidates``, ``samples``, ``tokens`` or ``seconds=120``. Without an amount, what
        choosing by chance would spend in those steps; the number of steps is then the policy's own. See `RunBudget`.
    learning_rate
        Its peak: it rises over the first twentieth of the budget and falls linearly to 0.
    lora_rank
        Rank of the LoRA adapters, or None for full fine-tuning.
    bf16
        Compute in bfloat16 (autocast); weights stay in float32.
    eval_every
        Steps between evaluations, or None for about eight a run.
    metrics
        What is measured beside the held-out loss: ``accuracy``, ``exact_match``.
    answer_tokens
        At most so many are generated for ``exact_match``.
    threads
        Of the CPU, or None for as many as PyTorch takes.
    """

    keep: float = 0.25
    batch_size: int = 16
    steps: int | None = None
    epochs: float = 1.0
    budget: str = "candidates"
    learning_rate: float = 5e-5
    lora_rank: int | None = None
    bf16: bool = False
    eval_every: int | None = None
    metrics: tuple[str, ...] = ()
    answer_tokens: int = 128
    threads: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self, whole=("batch_size", "steps", "eval_every", "answer_tokens", "threads"))
        unknown = [metric for metric in self.metrics if metric not in METRICS]
        if unknown or len(set(self.metrics)) < len(self.metrics):
            msg = f"`metric` must be {' or '.join(METRICS)}, each once, got {', '.join(self.metrics)}"
            raise LabError(msg)
        kind, amount = RunBudget.parse(self.budget)
        if kind == "seconds" and amount is None:
            msg = "`budget` seconds needs an amount: seconds=120 trains for two minutes"
            raise LabError(msg)

    def total_steps(self, examples: int, /) -> int:
        """Steps of a run over a training set of so many examples."""
        if examples < self.batch_size:
            msg = f"`batch_size` counts candidates and is {self.batch_size}, more than the {examples} training examples"
            raise LabError(msg)
        return self.steps or max(1, round(self.epochs * (examples // self.batch_size)))

    def evaluation_steps(self, steps: int, /) -> int:
        """Steps between evaluations in a run of so many."""
        return self.eval_every or max(1, round(steps / _EVALUATIONS))


def check_numbers(options: Any, /, *, whole: Sequence[str]) -> None:
    """Raise where the share, the passes or the learning rate of `options` cannot be, or one of the `whole` numbers."""
    if not 0.0 < options.keep <= 1.0:
        msg = f"`keep` must be a share in (0, 1], got {options.keep}: 0.25 trains on a quarter of the candidates"
        raise LabError(msg)
    for name in whole:
        value = getattr(options, name)
        if value is not None and value < 1:
            msg = f"`{name}` must be at least 1, got {value}"
            raise LabError(msg)
    for name in ("epochs", "learning_rate"):
        if not getattr(options, name) > 0:
            msg = f"`{name}` must be greater than 0, got {getattr(options, name)}"
            raise LabError(msg)
