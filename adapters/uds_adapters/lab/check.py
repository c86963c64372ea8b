"""Predictions held against real runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .model import load_model
from .prediction import Prediction
from .run import run
from .settings import Settings
from .task import Task

__all__ = ["Checked", "check"]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Seconds of a step, as predicted and as they were."""

    policy: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Of what was measured; above 0 where the prediction was too high."""
        return self.predicted / self.measured - 1.0


def check(
    task: Task,
    prediction: Prediction,
    /,
    *,
    policy: str,
    settings: Settings,
    steps: int,
    seed: int,
    told: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Train for `steps` with full training, chance and `policy`, as `uds compare` does, and compare the time.

    A step that is thrown away comes first. Evaluations are left out. `told` is called with the number of runs done.
    """
    asked = replace(settings, keep=prediction.keep, batch_size=prediction.candidates, steps=steps, budget="candidates")
    predicted = {"full": prediction.full, "random": prediction.chance, policy: prediction.selecting}
    found: list[Checked] = []
    with tempfile.TemporaryDirectory() as folder:

        def seconds(name: str, plan: Settings) -> float:
            result = run(
                load_model(task.model),
                tokenizer=task.tokenizer,
                train=task.train,
                collator=task.collator,
                policy=name,
                seed=seed,
                settings=plan,
                folder=Path(folder),
            )
            return result.seconds["total"] / result.steps

        seconds(policy, replace(asked, steps=1))
        for number, (name, step) in enumerate(predicted.items(), start=1):
            found.append(Checked(policy=name, predicted=step.total, measured=seconds(name, asked)))
            if told is not None:
                told(number)
    return found
