"""One fine-tuning and its folder: started, gone on with, interrupted, finished."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..data.source import Source
from ..errors import Interrupted, LabError
from ..models import quiet, save
from ..storage import claim
from ..system import patient
from ..system import threads as at_most
from ..training.task import Task, prepare
from .settings import Training
from .sft_trainer import Trained, check, fine_tune, last_checkpoint, rows

__all__ = ["Job"]

_RESULT, _AUDIT, _CHECKPOINTS = "training.json", "audit.jsonl", "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A fine-tuning that is ready to run.

    Parameters
    ----------
    task, training
        What is learnt, and how.
    max_length
        Tokens after which a sample is cut.
    folder
        Where everything goes.
    steps
        Of the whole run.
    checkpoint
        From which it goes on; None: from the start.
    finished
        Its result, where it has run already.
    """

    task: Task
    training: Training
    max_length: int
    folder: Path
    steps: int
    checkpoint: Path | None = None
    finished: dict[str, Any] | None = None

    @classmethod
    def prepare(cls, source: Source, training: Training, /, *, folder: Path, resume: bool, overwrite: bool) -> Job:
        """Check everything that can be wrong before the first step, read the task, and claim the folder.

        Raises
        ------
        LabError
            Where something is.
        """
        training.make_policy()
        if torch.cuda.device_count() > 1:
            msg = "several GPUs are visible, and one is trained on: set CUDA_VISIBLE_DEVICES=0"
            raise LabError(msg)
        task = prepare(source, seed=training.seed)
        steps = training.total_steps(rows(task, training, max_length=source.max_length))
        with quiet():
            check(training, steps=steps, folder=folder / _CHECKPOINTS, max_length=source.max_length)
        if not resume:
            claim(folder, overwrite=overwrite)
            _clear(folder)
        return cls(
            task=task,
            training=training,
            max_length=source.max_length,
            folder=folder,
            steps=steps,
            checkpoint=last_checkpoint(folder / _CHECKPOINTS),
            finished=_result(folder),
        )

    def words(self) -> str:
        """What it is about to do."""
        said = f"{len(self.task.train)} training examples, {len(self.task.heldout)} held out"
        if self.task.left_out:
            said += f"; {self.task.left_out} left out, whose prompt alone fills {self.max_length} tokens"
        if self.checkpoint is not None:
            said += f"; going on from {self.checkpoint.name}"
        return said + "."

    def run(self, *, threads: int | None, audit: bool, after_step: Callable[[int], None]) -> dict[str, Any]:
        """Train, save the model, and write down how it went; the result, ready for JSON.

        Raises
        ------
        Interrupted
            After Ctrl-C, with a checkpoint saved.
        LabError
            Where a library refuses an option, or the disk is full.
        """
        with at_most(threads), quiet(), patient() as stop:
            trained = fine_tune(
                self.task,
                self.training,
                steps=self.steps,
                folder=self.folder / _CHECKPOINTS,
                max_length=self.max_length,
                audit=self.folder / _AUDIT if audit else None,
                resume=self.checkpoint,
                stop=stop,
                after_step=after_step,
            )
            if trained.step < trained.steps:
                msg = (
                    f"Stopped after step {trained.step} of {trained.steps}, with a checkpoint. Go on with: uds train "
                    f"--resume {self.folder}"
                )
                raise Interrupted(msg)
            saved = save(trained.model, tokenizer=self.task.tokenizer, base=self.task.model, folder=self.folder)
        result = {
            "policy": self.training.policy,
            "steps": trained.steps,
            "samples": trained.samples,
            "losses": [[row["step"], row["eval_loss"]] for row in trained.log if "eval_loss" in row],
            "saved": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(saved).items()},
        }
        result["words"] = [_course(trained, result["losses"]), saved.words()]
        storage.write(self.folder / _RESULT, storage.as_json({**result, "log": trained.log}, indent=1))
        return result


def _course(trained: Trained, losses: list[list[float]]) -> str:
    said = f"Trained for {trained.steps} steps, on {trained.samples:,} samples."
    if losses:
        said += f" Held-out loss: {losses[0][1]:.3f} before, {losses[-1][1]:.3f} after."
        if not math.isfinite(losses[-1][1]):
            said += " That is no number, so the model is worthless: lower the learning rate."
    return said


def _result(folder: Path) -> dict[str, Any] | None:
    path = folder / _RESULT
    if not path.is_file():
        return None
    return {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name != "log"}


def _clear(folder: Path) -> None:
    """Take away what an earlier run left, which would otherwise be gone on with."""
    shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    for path in (folder / _RESULT, *folder.glob("audit*.jsonl")):
        path.unlink(missing_ok=True)
