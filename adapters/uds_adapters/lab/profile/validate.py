"""Predicted costs compared with those of real runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from ..training.run import train_once
from ..training.settings import Settings
from ..training.task import Task
from .cost_model import Prediction

__all__ = ["ROUNDS", "Checked", "check"]

ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Seconds of a step, predicted and measured."""

    policy: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Return the relative error; above 0 where the prediction was too high."""
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
    progress: Callable[[int], None] | None = None,
) -> list[Checked]:
    """Train with `full`, `random` and `policy`, as `uds compare` does, and compare the time.

    Each is trained anew in `ROUNDS` rounds of `steps` steps, in turn and on other candidates in each, and the median of
    the rounds counts. A step that is thrown away comes first. Evaluations are left out. `progress` is called with the
    number of runs done.
    """
    asked = replace(settings, keep=prediction.keep, batch_size=prediction.candidates, steps=steps, budget="candidates")
    predicted = [("full", prediction.full), ("random", prediction.random), (policy, prediction.selecting)]
    found: list[list[float]] = [[] for _ in predicted]
    with tempfile.TemporaryDirectory() as folder:
        _seconds(task, policy, replace(asked, steps=1), seed=seed, folder=Path(folder))
        for turn in range(ROUNDS):
            for number, (name, _) in enumerate(predicted):
                found[number].append(_seconds(task, name, asked, seed=seed + turn, folder=Path(folder)))
                if progress is not None:
                    progress(turn * len(predicted) + number + 1)
    return [
        Checked(policy=name, predicted=step.total, measured=median(seconds))
        for (name, step), seconds in zip(predicted, found, strict=True)
    ]


def _seconds(task: Task, policy: str, settings: Settings, *, seed: int, folder: Path) -> float:
    """Return the mean seconds of a step of a real run."""
    result = train_once(task, policy=policy, seed=seed, settings=settings, folder=folder).result
    return result.seconds["total"] / result.steps
