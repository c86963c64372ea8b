"""Arguments of the Trainer, from the settings of a run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

import uds_core as uds

from ..errors import LabError
from .settings import Settings
from .trainer_options import TrainerOptions

__all__ = ["as_lab_error", "check", "training_arguments"]


def training_arguments(
    settings: Settings, extra: TrainerOptions | None, /, *, steps: int, seed: int, folder: Path, max_length: int
) -> TrainingArguments:
    """Return the arguments: those of TRL where `extra` has any for it, else of transformers.

    Raises
    ------
    LabError
        Where an argument of TRL is unknown, or an option of `uds train` sets it.
    """
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "bf16": settings.bf16,
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "seed": seed,
        "disable_tqdm": True,
    }
    usual: dict[str, Any] = {
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,  # the selector needs `index`
    }
    if extra is None:
        return TrainingArguments(**ours, **usual, save_strategy="no", logging_strategy="no", report_to="none")
    ours |= {
        "gradient_accumulation_steps": extra.accumulate,
        "gradient_checkpointing": extra.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": extra.checkpoint_steps(steps),
        "save_total_limit": extra.checkpoints,
        "report_to": list(extra.report_to) or "none",
    }
    usual |= {"logging_steps": max(1, steps // 100), "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if not extra.trl:
        return TrainingArguments(**ours, **usual)
    if extra.plain:
        usual |= {"max_length": max_length, "dataset_kwargs": {"skip_prepare_dataset": True}}
    else:
        usual |= {"max_length": max_length if extra.trl.get("packing") else None, "remove_unused_columns": True}
    return _sft_config(extra, ours, usual)


def check(
    settings: Settings, extra: TrainerOptions, /, *, policy: uds.Policy, seed: int, folder: Path, max_length: int
) -> None:
    """Raise what a library, a tracker or the schedule would refuse in a run of `settings.steps`, before it starts.

    Raises
    ------
    LabError
        With the message of the library.
    """
    steps = settings.steps or 1
    with as_lab_error():
        extra.schedule(steps).check(policy)
        training_arguments(settings, extra, steps=steps, seed=seed, folder=folder, max_length=max_length)
        for tracker in get_reporting_integration_callbacks(list(extra.report_to)):
            tracker()  # raises where its package is missing


@contextlib.contextmanager
def as_lab_error() -> Iterator[None]:
    """Show the user what libraries say of options that do not go together, without a traceback."""
    try:
        yield
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise LabError(" ".join(str(error).split())) from error


def _sft_config(extra: TrainerOptions, ours: dict[str, Any], usual: dict[str, Any]) -> TrainingArguments:
    from trl.trainer.sft_config import SFTConfig

    names = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    for name in extra.trl:
        if name in ours:
            msg = f"`--trl` {name}: an option of `uds train` sets it already; see `uds train --help`"
            raise LabError(msg)
        if name not in names:
            msg = f"`--trl` {name}: trl.SFTConfig has no such argument"
            raise LabError(msg)
    return SFTConfig(**{**usual, **extra.trl, **ours})
