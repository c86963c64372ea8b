"""The Trainer of the laboratory: `UDSTrainer` that keeps a record of what was chosen, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from ... import batches
from ...transformers import UDSTrainer
from .budget import RunBudget, learning_rate

__all__ = ["Clock", "Evaluations", "Progress", "RecordingTrainer"]


class Clock:
    """Seconds of training, split by purpose. What runs under `paused` counts for no purpose but its own.

    Accelerators work asynchronously, so every reading waits for `device` first.
    """

    def __init__(self, device: torch.device, /) -> None:
        self.device = device
        self.scoring = self.forward_backward = self.paused = 0.0
        self._began = self.now()

    def now(self) -> float:
        """A time stamp; only differences mean something."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self) -> None:
        """Training begins: whatever was before does not count."""
        self.scoring = self.forward_backward = self.paused = 0.0
        self._began = self.now()

    def elapsed(self) -> float:
        """Seconds since the start, without those that were paused."""
        return self.now() - self._began - self.paused


class RecordingTrainer(UDSTrainer):
    """`UDSTrainer` over candidates in a fixed order, until a budget is spent, with a record.

    Each example carries `index`, its place in the data set: the policy knows samples by it, the model never sees it.

    Parameters
    ----------
    budget
        When it is spent, training ends; the learning rate follows it.
    steps
        In which chance would spend it, to guess how much the first step takes.
    selection
        As of `UDSTrainer`.

    Attributes
    ----------
    clock
        Where the time went.
    candidates, samples
        How many were looked at, and how many of them trained on.
    selected
        Of each step, the data-set indices that were trained on.
    tokens
        Counts: in the candidates, forwarded for scoring, forwarded for training, and trained on (rows with loss).
    """

    def __init__(
        self, *args: Any, budget: RunBudget, steps: int, selection: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, selection={"id_field": "index", **(selection or {})}, **kwargs)
        self.remove_callback(PrinterCallback)
        self.budget, self.expected_steps = budget, steps
        self.candidates = self.samples = 0
        self.clock = Clock(self.args.device)
        self.selected: list[list[int]] = []
        self.tokens = {"candidates": 0, "forwarded_for_scoring": 0, "forwarded_for_training": 0, "trained": 0}

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward, timed."""
        began = self.clock.now()
        loss = super().training_step(*args, **kwargs)
        self.clock.forward_backward += self.clock.now() - began
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ARG002 - not known
        """The learning rate as the budget is spent, in place of one by steps, whose number is not known."""
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return self.lr_scheduler

    def spent(self) -> float:
        """Return the fraction of the budget that is spent."""
        return self.budget.spent(
            candidates=self.candidates,
            samples=self.samples,
            tokens=self.tokens["trained"],
            seconds=self.clock.elapsed() if self.budget.kind == "seconds" else 0.0,  # reading it waits for the device
        )

    def _learning_rate(self, step: int) -> float:
        """That of the middle of the coming step."""
        spent = self.spent() if step else 0.0
        return learning_rate(spent + 0.5 * (spent / step if step else 1.0 / self.expected_steps))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # the data set is the order: chance lies in how it was made, not in what a policy does to a generator
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        return torch.utils.data.SequentialSampler(data)

    def _uds_select(self, batch: Any) -> Any:
        began = self.clock.now()
        kept = super()._uds_select(batch)
        self.clock.scoring += self.clock.now() - began
        self.selected.append(self.selector.last_ids)
        self.samples += len(self.selected[-1])
        self.candidates += len(batch["index"])
        self._count(batch, kept)
        return kept

    def _count(self, candidates: Any, kept: Any) -> None:
        number = int(candidates["attention_mask"].sum())
        self.tokens["candidates"] += number
        self.tokens["forwarded_for_scoring"] += number if self.selector.policy.needs.logits else 0
        self.tokens["forwarded_for_training"] += int(kept["attention_mask"].sum())
        self.tokens["trained"] += batches.trained_tokens(kept)


class Progress(TrainerCallback):
    """After each step: tells how far the run is, in the steps that chance would take, and ends it.

    Parameters
    ----------
    trainer
        Whose run it is.
    told
        Called after each step; at the end, with the number of steps.
    """

    def __init__(self, trainer: RecordingTrainer, told: Callable[[int], None] | None) -> None:
        self.trainer, self.told = trainer, told

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        spent = self.trainer.spent()
        if self.told is not None:
            self.told(min(round(spent * self.trainer.expected_steps), self.trainer.expected_steps))
        if spent >= 1.0:
            control.should_training_stop = True


class Evaluations(TrainerCallback):
    """Measures at the start, along the way and at the end, while the clock of training stands still.

    Parameters
    ----------
    trainer
        Whose clock it is.
    measure
        Called with steps done and seconds trained.
    every
        Steps between measurements; in a run that takes another number of them than chance would, its share of the
        budget.
    """

    def __init__(self, trainer: RecordingTrainer, measure: Callable[[int, float], None], *, every: int) -> None:
        self.trainer, self.measure, self.every = trainer, measure, every
        self._measured = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Before the first step."""
        self.trainer.clock.start()
        self._paused(0)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """After a step, when it is time."""
        spent = self.trainer.spent()
        passed = int(spent * self.trainer.expected_steps + 1e-6) // self.every
        if passed > self._measured or spent >= 1.0:
            self._measured = passed
            self._paused(state.global_step)

    def _paused(self, step: int) -> None:
        clock = self.trainer.clock
        seconds = clock.elapsed()
        began = clock.now()
        self.measure(step, seconds)
        clock.paused += clock.now() - began
