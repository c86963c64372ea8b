"""Evaluation, progress and end of a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from ..evaluation.heldout import HeldOut, Measured
from .recording_trainer import RecordingMixin
from .run_result import Evaluation

__all__ = ["BudgetSpent", "RunCallback"]


class BudgetSpent(Exception):  # noqa: N818 - no error
    """A run was resumed whose budget is spent; the Trainer would take one more step."""


class RunCallback(TrainerCallback):
    """Evaluate at the start, along the way and at the end, report progress, and end the run.

    Parameters
    ----------
    trainer
        The trainer of the run. Its clock stands still during evaluations.
    heldout
        What is measured; None: nothing.
    every
        Steps between evaluations. A run with another number of steps than random selection is evaluated at the same
        fractions of the budget.
    after_step
        Called after each step with the progress, in the steps that random selection would take.
    stop
        Called after each step; True saves a checkpoint and ends the run.

    Attributes
    ----------
    last
        The last evaluation, example by example.
    """

    def __init__(
        self,
        trainer: RecordingMixin,
        *,
        heldout: HeldOut | None,
        every: int,
        after_step: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.trainer, self.heldout, self.every = trainer, heldout, every
        self.after_step, self.stop = after_step, stop
        self.last: Measured | None = None
        self._evaluated = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Before the first step, of a resumed run too; raise `BudgetSpent` where none is left."""
        self._evaluated = self._due(self.trainer.spent())
        self.trainer.clock.start(elapsed=self.trainer.elapsed_before)
        if state.global_step == 0:
            self._evaluate(0)
        elif self.trainer.spent() >= 1.0:
            raise BudgetSpent

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """After each step."""
        spent, steps = self.trainer.spent(), self.trainer.expected_steps
        if (due := self._due(spent)) > self._evaluated or spent >= 1.0:
            self._evaluated = due
            self._evaluate(state.global_step)
        if self.after_step is not None:
            self.after_step(min(round(spent * steps), steps))
        if spent >= 1.0:
            control.should_training_stop = True
        elif self.stop is not None and self.stop():
            control.should_save = control.should_training_stop = True

    def _due(self, spent: float) -> int:
        """Return how many evaluations should have been made along the way."""
        return int(spent * self.trainer.expected_steps + 1e-6) // self.every

    def _evaluate(self, step: int) -> None:
        if self.heldout is None:
            return
        trainer, clock = self.trainer, self.trainer.clock
        seconds, began = clock.elapsed(), clock.now()
        self.last = self.heldout.measure(trainer.model)
        trainer.evaluations.append(
            Evaluation(
                step=step,
                samples=trainer.samples,
                tokens=trainer.tokens["trained"],
                seconds=seconds,
                loss=self.last.loss,
                accuracy=self.last.fraction("accuracy"),
                exact_match=self.last.fraction("exact_match"),
            )
        )
        due = trainer.control.should_log  # the Trainer takes it back with each log, and this one is not the step's
        trainer.log({"eval_loss": self.last.loss})
        trainer.control.should_log = due
        clock.paused += clock.now() - began
