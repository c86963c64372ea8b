"""The Trainer of the laboratory: `UDSTrainer` that keeps a record of what was chosen, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from .. import batches
from ..transformers import UDSTrainer

__all__ = ["Clock", "Evaluations", "RecordingTrainer", "StepCallback"]


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
    """`UDSTrainer` over candidates in a fixed order, with a record.

    Each example carries `index`, its place in the data set: the policy knows samples by it, the model never sees it.

    Attributes
    ----------
    clock
        Where the time went.
    selected
        Of each step, the data-set indices that were trained on.
    tokens
        Counts: in the candidates, forwarded for scoring, forwarded for training, and trained on (rows with loss).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, selection={"id_field": "index"}, **kwargs)
        self.remove_callback(PrinterCallback)
        self.clock = Clock(self.args.device)
        self.selected: list[list[int]] = []
        self.tokens = {"candidates": 0, "forwarded_for_scoring": 0, "forwarded_for_training": 0, "trained": 0}

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward, timed."""
        began = self.clock.now()
        loss = super().training_step(*args, **kwargs)
        self.clock.forward_backward += self.clock.now() - began
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # the data set is the order: chance lies in how it was made, not in what a policy does to a generator
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        return torch.utils.data.SequentialSampler(data)

    def _uds_select(self, batch: Any) -> Any:
        began = self.clock.now()
        kept = super()._uds_select(batch)
        self.clock.scoring += self.clock.now() - began
        self.selected.append(self.selector.last_ids)
        self._count(batch, kept)
        return kept

    def _count(self, candidates: Any, kept: Any) -> None:
        number = int(candidates["attention_mask"].sum())
        self.tokens["candidates"] += number
        self.tokens["forwarded_for_scoring"] += number if self.selector.policy.needs_logits else 0
        self.tokens["forwarded_for_training"] += int(kept["attention_mask"].sum())
        self.tokens["trained"] += batches.trained_tokens(kept)


class StepCallback(TrainerCallback):
    """Calls `after_step` with the number of steps done."""

    def __init__(self, after_step: Callable[[int], None]) -> None:
        self.after_step = after_step

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """A step is done."""
        self.after_step(state.global_step)


class Evaluations(TrainerCallback):
    """Measures at the start, every `every` steps and at the end, while the clock of training stands still.

    Parameters
    ----------
    trainer
        Whose clock it is.
    measure
        Called with steps done and seconds trained.
    every
        Steps between measurements.
    """

    def __init__(self, trainer: RecordingTrainer, measure: Callable[[int, float], None], *, every: int) -> None:
        self.trainer, self.measure, self.every = trainer, measure, every

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Before the first step."""
        self.trainer.clock.start()
        self._paused(0)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """After a step, when it is time."""
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._paused(state.global_step)

    def _paused(self, step: int) -> None:
        clock = self.trainer.clock
        seconds = clock.elapsed()
        began = clock.now()
        self.measure(step, seconds)
        clock.paused += clock.now() - began
