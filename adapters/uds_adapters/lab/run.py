"""One training run: one policy, one seed, one result."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from .encode import Collator, Example
from .evaluate import HeldOut
from .model import with_lora
from .policies import make_policy
from .settings import Settings
from .trainer import Evaluations, RecordingTrainer, StepCallback

__all__ = ["Evaluation", "RunResult", "candidate_order", "run"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The held-out loss at one moment of a run."""

    step: int
    samples: int
    """Samples trained on until then."""
    seconds: float
    """Seconds of training until then, evaluations left out."""
    loss: float


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
    """`scoring`, `forward_backward` and `rest`, which add up to `total`; `evaluation` is on top of it."""
    evaluations: list[Evaluation]
    """Empty where nothing is held out."""
    selected: list[list[int]]
    """Of each step, the indices into the training data set."""


def candidate_order(examples: int, /, *, batch_size: int, steps: int, seed: int) -> list[int]:
    """Indices of the candidates of all steps, one batch after the other.

    Permutation after permutation, each cut to whole batches, so that no batch holds a sample twice. Depends on the seed
    alone: all policies see the same.
    """
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * batch_size:
        permutation = generator.sample(range(examples), examples)
        order += permutation[: examples - examples % batch_size]
    return order[: steps * batch_size]


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
    after_step
        Called with the number of steps done.
    save
        Whether model (or LoRA adapters) and tokenizer are saved in `folder`.
    """
    steps = settings.total_steps(len(train))
    order = candidate_order(len(train), batch_size=settings.batch_size, steps=steps, seed=seed)
    if settings.lora_rank is not None:
        model = with_lora(model, rank=settings.lora_rank, seed=seed)
    trainer = RecordingTrainer(
        model=model,
        args=_arguments(settings, steps=steps, seed=seed, folder=folder),
        train_dataset=[train[index] for index in order],  # type: ignore[arg-type]
        data_collator=collator,
        processing_class=tokenizer,
        policy=make_policy(policy, keep=settings.keep, seed=seed),
    )
    evaluations: list[Evaluation] = []

    def measure(step: int, seconds: float) -> None:
        if heldout is not None:
            samples = sum(map(len, trainer.selected[:step]))
            evaluations.append(Evaluation(step=step, samples=samples, seconds=seconds, loss=heldout(trainer.model)))

    trainer.add_callback(Evaluations(trainer, measure, every=settings.evaluation_steps(steps)))
    if after_step is not None:
        trainer.add_callback(StepCallback(after_step))
    trainer.train()
    total = trainer.clock.elapsed()
    if save:
        trainer.save_model(str(folder))
    return _result(trainer, policy=policy, seed=seed, total=total, evaluations=evaluations)


def _arguments(settings: Settings, *, steps: int, seed: int, folder: Path) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=steps // 20,
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


def _result(
    trainer: RecordingTrainer, *, policy: str, seed: int, total: float, evaluations: list[Evaluation]
) -> RunResult:
    clock = trainer.clock
    return RunResult(
        policy=policy,
        seed=seed,
        steps=trainer.state.global_step,
        candidates=trainer.state.global_step * trainer.args.per_device_train_batch_size,
        samples=sum(map(len, trainer.selected)),
        tokens=dict(trainer.tokens),
        seconds={
            "scoring": clock.scoring,
            "forward_backward": clock.forward_backward,
            "rest": total - clock.scoring - clock.forward_backward,
            "total": total,
            "evaluation": clock.paused,
        },
        evaluations=evaluations,
        selected=trainer.selected,
    )
