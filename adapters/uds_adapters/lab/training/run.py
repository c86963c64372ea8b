"""One training run: one policy, one seed, one result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ..data.candidate_order import CandidateOrder, Ordered
from ..data.encoding import Collator, Example
from ..evaluation.heldout import HeldOut, Measured
from ..models import with_lora
from ..policy_spec import make_policy
from .budget import RunBudget
from .recording_trainer import Evaluations, Progress, RecordingTrainer
from .settings import Settings

__all__ = ["Evaluation", "RunResult", "run"]

_UNBOUNDED = 10**7  # steps: another budget ends the run


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The held-out loss at one moment of a run."""

    step: int
    samples: int
    """Samples trained on until then."""
    tokens: int
    """Tokens trained on until then."""
    seconds: float
    """Seconds of training until then, evaluations left out."""
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
    """Trained on; a sample that was chosen twice counts twice."""
    tokens: dict[str, int]
    seconds: dict[str, float]
    """`scoring`, `forward_backward` and `rest`, which add up to `total`; `evaluation` and `preparation` are on top."""
    evaluations: list[Evaluation]
    """Empty where nothing is held out."""
    selected: list[list[int]]
    """Of each step, the indices into the training data set."""
    measured: Measured | None = None
    """The last evaluation, example by example."""


def run(
    model: Any,
    /,
    *,
    tokenizer: Any,
    train: Sequence[Example],
    collator: Collator,
    policy: str,
    seed: int,
    settings: Settings,
    folder: Path,
    heldout: HeldOut | None = None,
    options: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    after_step: Callable[[int], None] | None = None,
    save: bool = False,
) -> RunResult:
    """Train `model`, in place.

    Parameters
    ----------
    model, tokenizer
        Of transformers.
    train
        The training data set.
    collator
        Makes batches of it.
    policy
        A policy in words; see `policies`.
    seed
        Of the candidates' order, the LoRA adapters, dropout, and the policy.
    settings
        What all runs share.
    folder
        The Trainer's, for files it may write.
    heldout
        Measured at the start, along the way and at the end.
    options
        Of the policy, that no words can say; see `make_policy`.
    selection
        Of the selector, such as an audit; see `UDSTrainer`.
    after_step
        Called after each step with how far the run is, in the steps that chance would take.
    save
        Whether model (or LoRA adapters) and tokenizer are saved in `folder`.
    """
    steps = settings.total_steps(len(train))
    order = CandidateOrder(len(train), batch_size=settings.batch_size, seed=seed)
    budget = _budget(settings, order=order, train=train, steps=steps)
    most = steps if budget.kind == "candidates" else _UNBOUNDED
    if settings.lora_rank is not None:
        model = with_lora(model, rank=settings.lora_rank, seed=seed)
    trainer = RecordingTrainer(
        model=model,
        args=_arguments(settings, steps=most, seed=seed, folder=folder),
        train_dataset=Ordered(train, order, length=most * settings.batch_size),
        data_collator=collator,
        processing_class=tokenizer,
        policy=make_policy(policy, keep=settings.keep, seed=seed, provided=options),
        selection=selection,
        budget=budget,
        steps=steps,
    )
    record = _Record(trainer, heldout)
    trainer.add_callback(Evaluations(trainer, record, every=settings.evaluation_steps(steps)))
    trainer.add_callback(Progress(trainer, after_step))
    trainer.train()
    total = trainer.clock.elapsed()
    if save:
        trainer.save_model(str(folder))
    return _result(trainer, policy=policy, seed=seed, total=total, record=record)


class _Record:
    """The evaluations of a run; the last one example by example."""

    def __init__(self, trainer: RecordingTrainer, heldout: HeldOut | None) -> None:
        self.trainer, self.heldout = trainer, heldout
        self.evaluations: list[Evaluation] = []
        self.last: Measured | None = None

    def __call__(self, step: int, seconds: float) -> None:
        if self.heldout is None:
            return
        trainer, found = self.trainer, self.heldout.measure(self.trainer.model)
        self.last = found
        self.evaluations.append(
            Evaluation(
                step=step,
                samples=trainer.samples,
                tokens=trainer.tokens["trained"],
                seconds=seconds,
                loss=found.loss,
                accuracy=found.share("accuracy"),
                exact_match=found.share("exact_match"),
            )
        )


def _budget(settings: Settings, *, order: CandidateOrder, train: Sequence[Example], steps: int) -> RunBudget:
    kind, amount = RunBudget.parse(settings.budget)
    if amount is not None:
        return RunBudget(kind=kind, amount=amount)
    return RunBudget.of(kind, order=order.first(steps * settings.batch_size), train=train, keep=settings.keep)


def _arguments(settings: Settings, *, steps: int, seed: int, folder: Path) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        bf16=settings.bf16,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        seed=seed,
        remove_unused_columns=False,  # `index` is for us
        dataloader_pin_memory=torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def _result(trainer: RecordingTrainer, *, policy: str, seed: int, total: float, record: _Record) -> RunResult:
    clock = trainer.clock
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
        evaluations=record.evaluations,
        selected=trainer.selected,
        measured=record.last,
    )
