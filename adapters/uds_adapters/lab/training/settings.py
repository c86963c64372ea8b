"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import LabError
from .budget import RunBudget

__all__ = ["METRICS", "Settings", "check_positive"]

METRICS = ("accuracy", "exact_match")
_EVALUATIONS = 8  # evaluations in a run, by default


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained, by every command; the defaults of all commands stand here.

    Parameters
    ----------
    keep
        Fraction of the candidates that is trained on.
    batch_size
        Candidates in a batch.
    steps
        Optimizer steps; None: `epochs` passes over the training data.
    budget
        What all runs of a comparison spend equally: ``candidates``, ``samples``, ``tokens`` or ``seconds=120``. Without
        an amount, what random selection would spend in those steps; the number of steps then depends on the policy.
        See `RunBudget`.
    learning_rate
        The peak: the rate rises over the first twentieth of the budget and falls linearly to 0.
    lora_rank
        Rank of the LoRA adapters, where the model has none yet; None: full fine-tuning.
    bf16
        Compute in bfloat16 (autocast); the weights stay in float32.
    eval_every
        Steps between evaluations; None: about eight evaluations a run.
    metrics
        What is measured beside the held-out loss: ``accuracy``, ``exact_match``.
    answer_tokens
        Largest number of tokens generated for ``exact_match``.
    threads
        CPU threads per process; None: PyTorch's choice.
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
        if not 0.0 < self.keep <= 1.0:
            msg = f"`keep` must be a fraction in (0, 1], got {self.keep}: 0.25 trains on a quarter of the candidates"
            raise LabError(msg)
        for name in ("epochs", "learning_rate"):
            if not getattr(self, name) > 0:
                msg = f"`{name}` must be greater than 0, got {getattr(self, name)}"
                raise LabError(msg)
        check_positive(self, "batch_size", "steps", "lora_rank", "eval_every", "answer_tokens", "threads")
        unknown = [metric for metric in self.metrics if metric not in METRICS]
        if unknown or len(set(self.metrics)) < len(self.metrics):
            msg = f"`metric` must be {' or '.join(METRICS)}, each once, got {', '.join(self.metrics)}"
            raise LabError(msg)
        kind, amount = RunBudget.parse(self.budget)
        if kind == "seconds" and amount is None:
            msg = "`budget` seconds needs an amount: seconds=120 trains for two minutes"
            raise LabError(msg)

    def total_steps(self, rows: int, /, *, accumulate: int = 1, what: str = "training examples") -> int:
        """Return the steps of a run over a training set of so many rows, each step on `accumulate` batches."""
        size = self.batch_size * accumulate
        if rows < size:
            times = f" times `accumulate` {accumulate}" if accumulate > 1 else ""
            msg = f"`batch_size` counts candidates and is {self.batch_size}{times}, more than the {rows} {what}"
            raise LabError(msg)
        return self.steps or max(1, round(self.epochs * (rows // size)))

    def evaluation_steps(self, steps: int, /) -> int:
        """Return the steps between evaluations in a run of `steps`."""
        return self.eval_every or max(1, round(steps / _EVALUATIONS))


def check_positive(options: Any, /, *names: str) -> None:
    """Raise where one of the whole numbers `names` of `options` is given and less than 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            msg = f"`{name}` must be at least 1, got {value}"
            raise LabError(msg)
