"""Trainers that record what was selected and where the time went, until a budget is spent."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer

from ... import batches
from ...trainer_mixin import UDSTrainerMixin
from ..data.candidate_order import CandidateOrder
from .budget import RunBudget, learning_rate
from .passes import TrainingPasses
from .run_result import Evaluation

__all__ = ["Clock", "RecordingMixin", "RecordingTrainer"]

_RECORD = "record.json"  # in a checkpoint


class Clock:
    """Seconds of training, split by purpose; what is `paused` counts for no other purpose.

    Accelerators work asynchronously, so every reading waits for `device` first.
    """

    def __init__(self, device: torch.device, /) -> None:
        self.device = device
        self.scoring = self.forward_backward = self.paused = 0.0
        self.start()

    def now(self) -> float:
        """Return a time stamp; only differences mean something."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, *, elapsed: float = 0.0) -> None:
        """Start the clock, `elapsed` seconds into the run."""
        self._began = self.now() - elapsed - self.paused

    def elapsed(self) -> float:
        """Return the seconds since the start, without those that were paused."""
        return self.now() - self._began - self.paused


class RecordingMixin(UDSTrainerMixin):
    """Records a run of any Trainer: ``class Mine(RecordingMixin, AnyTrainer)``.

    The candidates come in the order of `CandidateOrder`, and the learning rate follows the budget, unless the arguments
    ask for another schedule than the Trainer's default. Checkpoints hold the record, and a resumed run continues it.

    Parameters
    ----------
    budget
        Training ends when it is spent.
    steps
        Expected number of steps: those in which random selection spends the budget.

    Attributes
    ----------
    clock
        Where the time went.
    candidates, samples
        Numbers of samples seen, and trained on.
    selected
        Of each step, the ids of the samples that were trained on, where batches have any.
    tokens
        Counts: in the candidates, forwarded for scoring, forwarded for training, and trained on (rows with loss).
    evaluations
        So far.
    bounded
        Whether the training passes are those of `TrainingPasses`.
    """

    bounded = True

    def __init__(self, *args: Any, budget: RunBudget, steps: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.budget, self.expected_steps = budget, steps
        self.clock = Clock(self.args.device)
        self.elapsed_before = 0.0  # seconds of training before the run was resumed
        self.candidates = self.samples = 0
        self.tokens = {"candidates": 0, "forwarded_for_scoring": 0, "forwarded_for_training": 0, "trained": 0}
        self.selected: list[list[Any]] = []
        self.evaluations: list[Evaluation] = []

    def spent(self) -> float:
        """Return the fraction of the budget that is spent."""
        return self.budget.spent(
            candidates=self.candidates,
            samples=self.samples,
            tokens=self.tokens,
            seconds=self.clock.elapsed() if self.budget.kind == "seconds" else 0.0,  # reading it waits for the device
        )

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward, timed, in pieces where a batch would need much memory."""
        began = self.clock.now()
        losses = []
        for piece in self._pieces(inputs, num_items_in_batch):
            with self._bounded(piece):
                losses.append(super().training_step(model, piece, num_items_in_batch))
        self.clock.forward_backward += self.clock.now() - began
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    @functools.cached_property
    def _passes(self) -> TrainingPasses:
        return TrainingPasses(self.model)

    def _pieces(self, inputs: Any, num_items: Any) -> list[Any]:
        """Return the batch, or its pieces; a policy that is given measurements of whole batches needs these."""
        if not self.bounded or num_items is None or self.selector.policy.needs.training_pass:
            return [inputs]
        pieces = self._passes.pieces(inputs)
        if len(pieces) > 1:
            self._uds_chosen_ids.compare(inputs)  # the ids of the batch, before those of pieces would be
        return pieces

    def _bounded(self, piece: Any) -> contextlib.AbstractContextManager[None]:
        other = self.compute_loss_func is not None or self.label_smoother is not None  # computed from the logits
        return self._passes.bounded(piece) if self.bounded and not other else contextlib.nullcontext()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        """Select the step's batches, timed and counted."""
        drawn, drawing = list[int](), 0.0

        def watched() -> Iterator[Any]:
            nonlocal drawing
            began = self.clock.now()
            for batch in epoch_iterator:
                drawing += self.clock.now() - began
                drawn.append(_forwarded(batch))
                yield batch
                began = self.clock.now()

        self.selected.append([])
        forwarded = self.selector.policy.needs.forward_pass_at(self.selector.history.steps)
        began = self.clock.now()
        kept, items = super().get_batch_samples(watched(), num_batches, *args, **kwargs)
        self.clock.scoring += self.clock.now() - began - drawing
        self.candidates += len(drawn) * self.args.per_device_train_batch_size
        self.tokens["candidates"] += sum(drawn)
        if self.selector.last is not None and forwarded:
            self.tokens["forwarded_for_scoring"] += round(sum(drawn) * self.selector.metrics.get("shortlisted", 1.0))
        self.tokens["forwarded_for_training"] += sum(map(_forwarded, kept))
        self.tokens["trained"] += sum(map(batches.trained_tokens, kept))
        return kept, items

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Let the learning rate follow the budget: the number of steps may not be known."""
        if self.args.lr_scheduler_type != "linear" or self.args.warmup_steps:
            return super().create_scheduler(num_training_steps, optimizer)
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate)
        return self.lr_scheduler

    def _learning_rate(self, step: int) -> float:
        """Return the fraction of the peak in the middle of the coming step."""
        spent = self.spent() if step else 0.0
        return learning_rate(spent + 0.5 * (spent / step if step else 1.0 / self.expected_steps))

    def _uds_chosen(self) -> None:
        super()._uds_chosen()
        self.selected[-1] += self.selector.last_ids
        self.samples += len(self.selector.last_indices)

    # The Trainer has no public hook for a sampler, nor for a file that a checkpoint holds before it counts as whole.

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return CandidateOrder(len(data), batch_size=size, seed=self.args.seed)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        record = {name: getattr(self, name) for name in ("candidates", "samples", "tokens", "selected")}
        record["evaluations"] = [asdict(evaluation) for evaluation in self.evaluations]
        record["elapsed"] = self.clock.elapsed()
        record["clock"] = {name: getattr(self.clock, name) for name in ("scoring", "forward_backward", "paused")}
        Path(output_dir, _RECORD).write_text(json.dumps(record), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        record = json.loads(Path(checkpoint, _RECORD).read_text(encoding="utf-8"))
        self.evaluations = [Evaluation(**evaluation) for evaluation in record.pop("evaluations")]
        self.elapsed_before = record.pop("elapsed")
        vars(self.clock).update(record.pop("clock"))
        vars(self).update(record)


class RecordingTrainer(RecordingMixin, Trainer):
    """`transformers.Trainer` with a policy and a record."""


def _forwarded(batch: Mapping[str, Any]) -> int:
    """Return the number of tokens of a batch, without padding."""
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
