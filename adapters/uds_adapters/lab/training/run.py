"""One training run: one policy, one seed, one result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.candidate_order import CandidateOrder
from ..data.encoding import Example
from ..evaluation.heldout import HeldOut
from ..models import with_lora
from ..policy_spec import make_policy
from .arguments import as_lab_error, training_arguments
from .budget import RunBudget
from .recording_trainer import RecordingMixin, RecordingTrainer
from .run_callback import BudgetSpent, RunCallback
from .run_result import RunResult
from .settings import Settings
from .task import Task
from .trainer_options import TrainerOptions

__all__ = ["Trained", "train_once"]

_UNBOUNDED = 10**7  # steps: another budget ends the run


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model and its run."""

    result: RunResult
    model: Any
    """With LoRA, the adapters on the base model."""
    log: list[dict[str, Any]]
    """Rows as trackers get them; `eval_loss` is the held-out loss."""


def train_once(
    task: Task,
    /,
    *,
    policy: str,
    seed: int,
    settings: Settings,
    folder: Path,
    model: Any = None,
    heldout: HeldOut | None = None,
    options: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    trainer_options: TrainerOptions | None = None,
    resume: Path | None = None,
    stop: Callable[[], bool] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Trained:
    """Train the model of `task` anew.

    Parameters
    ----------
    task
        Model and data.
    policy
        A policy specification; see `policy_spec`.
    seed
        Seed of the candidates' order, the LoRA adapters, dropout, and the policy.
    settings
        How it is trained.
    folder
        The Trainer's, for checkpoints.
    model
        The model of `task`, where it is loaded already; it is trained in place.
    heldout
        Measured at the start, along the way and at the end.
    options
        Options of the policy that no text can express; see `make_policy`.
    selection
        Options of the selector, such as an audit; see `UDSTrainer`.
    trainer_options
        Options of `uds train`; None: no checkpoints, no log. With its `trl`, TRL's trainer is used.
    resume
        A checkpoint to continue from.
    stop
        Called after each step; True saves a checkpoint and ends the run.
    after_step
        Called after each step with the progress, in the steps that random selection would take.

    Raises
    ------
    LabError
        Where an option of the trainer is refused.
    """
    accumulate = 1 if trainer_options is None else trainer_options.accumulate
    steps = settings.total_steps(len(task.train), accumulate=accumulate)
    budget = _budget(settings, train=task.train, steps=steps, accumulate=accumulate, seed=seed)
    if model is None:
        model = task.load_model(lora=settings.lora_rank is not None)
    if settings.lora_rank is not None:
        model = with_lora(model, rank=settings.lora_rank, seed=seed)
    given: dict[str, Any] = {
        "model": model,
        "args": training_arguments(
            settings,
            trainer_options,
            steps=steps if budget.kind == "candidates" else _UNBOUNDED,
            seed=seed,
            folder=folder,
            max_length=task.encoder.max_length,
        ),
        "train_dataset": task.train,
        "data_collator": task.collator,
        "processing_class": task.tokenizer,
        "policy": make_policy(policy, keep=settings.keep, seed=seed, provided=options),
        "selection": {"id_field": "index", **(selection or {})},
        "budget": budget,
        "steps": steps,
    }
    trainer = _trainer(given, trainer_options, steps=steps)
    every = settings.evaluation_steps(steps)
    callback = RunCallback(trainer, heldout=heldout, every=every, after_step=after_step, stop=stop)
    trainer.add_callback(callback)
    with contextlib.suppress(BudgetSpent):
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    result = _result(trainer, policy=policy, seed=seed, callback=callback)
    return Trained(result=result, model=trainer.model, log=trainer.state.log_history)


def _trainer(given: dict[str, Any], trainer_options: TrainerOptions | None, *, steps: int) -> RecordingMixin:
    if trainer_options is None:
        return RecordingTrainer(**given)
    given["selection"]["schedule"] = trainer_options.schedule(steps)
    given["scope"] = trainer_options.scope
    with as_lab_error():
        if not trainer_options.trl:
            return RecordingTrainer(**given)
        from .sft_trainer import sft_trainer

        return sft_trainer(given, plain=trainer_options.plain)


def _budget(settings: Settings, *, train: Sequence[Example], steps: int, accumulate: int, seed: int) -> RunBudget:
    kind, amount = RunBudget.parse(settings.budget)
    if amount is not None:
        return RunBudget(kind=kind, amount=amount)
    size = settings.batch_size * accumulate
    order = CandidateOrder(len(train), batch_size=size, seed=seed)
    return RunBudget.of(kind, order=order.first(steps * size), train=train, keep=settings.keep)


def _result(trainer: RecordingMixin, *, policy: str, seed: int, callback: RunCallback) -> RunResult:
    clock = trainer.clock
    total = clock.elapsed()
    return RunResult(
        policy=policy,
        seed=seed,
        steps=trainer.state.global_step,
        candidates=trainer.candidates,
        samples=trainer.samples,
        tokens={**trainer.tokens, "preparation": 0},
        seconds={
            "scoring": clock.scoring,
            "forward_backward": clock.forward_backward,
            "rest": total - clock.scoring - clock.forward_backward,
            "total": total,
            "evaluation": clock.paused,
            "preparation": 0.0,
        },
        evaluations=trainer.evaluations,
        selected=trainer.selected,
        measured=callback.last,
        correlation=trainer.selector.metrics.get("predicted_correlation"),
    )
