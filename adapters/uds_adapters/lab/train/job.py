"""The output folder of `uds train`: a run is started, resumed, interrupted or finished there."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ... import trainer_checkpoints
from ...audit import Audit
from .. import storage
from ..console.config_file import FILE
from ..data.source import Source
from ..errors import Interrupted, LabError
from ..models import quiet, save
from ..policy_spec import early, make_policy
from ..storage import claim
from ..system import patient
from ..system import threads as at_most
from ..training import policy_inputs
from ..training.arguments import check
from ..training.run import Trained, train_once
from ..training.settings import Settings
from ..training.task import Task, prepare
from ..training.trainer_options import TrainerOptions
from .data_page import PAGE

__all__ = ["Job", "last_checkpoint"]

_SOURCE = "fingerprints.json"
_RESULT, _AUDIT, _CHECKPOINTS = "training.json", "audit.jsonl", "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A fine-tuning that is ready to run.

    Parameters
    ----------
    task
        Model and data.
    policy, seed, settings, trainer_options
        How it is trained; `settings.steps` is the number of steps of the whole run.
    folder
        Where everything goes.
    model
        Of the task, loaded.
    checkpoint
        From which it is resumed; None: it starts anew.
    damaged
        Later checkpoints, which were not written to their end; deleted when the run starts.
    finished
        Its result, where it has run already.
    """

    task: Task
    policy: str
    seed: int
    settings: Settings
    trainer_options: TrainerOptions
    folder: Path
    model: Any = None
    checkpoint: Path | None = None
    damaged: tuple[Path, ...] = ()
    finished: dict[str, Any] | None = None

    @classmethod
    def prepare(
        cls,
        source: Source,
        /,
        *,
        policy: str,
        seed: int,
        settings: Settings,
        trainer_options: TrainerOptions,
        folder: Path,
        resume: bool,
        overwrite: bool,
        examples: Path | None = None,
    ) -> Job:
        """Check everything that can be wrong before the first step, read the task, and claim the folder.

        `examples` is a folder where encoded examples are written, to stay there until the run is over.

        Raises
        ------
        LabError
            Where something is wrong.
        """
        made = make_policy(policy, keep=settings.keep, seed=seed, provided=early(policy, source.target))
        if torch.cuda.device_count() > 1:
            msg = "several GPUs are visible, and one is trained on: set CUDA_VISIBLE_DEVICES=0"
            raise LabError(msg)
        task = prepare(source, seed=seed, folder=examples)
        settings = replace(settings, steps=_steps(task, settings, trainer_options))
        with quiet():
            check(settings, trainer_options, policy=made, seed=seed, folder=folder, max_length=source.max_length)
        model = task.load_model(lora=settings.lora_rank is not None)
        fingerprints = source.fingerprints()
        if resume:
            _check_source(folder, fingerprints)
        else:
            claim(folder, overwrite=overwrite, leftovers=_leftovers(folder))
            _clear(folder)
            storage.write(folder / _SOURCE, storage.as_json(fingerprints))
        checkpoint, damaged = last_checkpoint(folder / _CHECKPOINTS)
        return cls(
            task=task,
            policy=policy,
            seed=seed,
            settings=settings,
            trainer_options=trainer_options,
            folder=folder,
            model=model,
            checkpoint=checkpoint,
            damaged=damaged,
            finished=_result(folder),
        )

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        assert self.settings.steps is not None
        return self.settings.steps

    def words(self) -> str:
        """Return what it is about to do."""
        clauses = [] if self.checkpoint is None else [f"resumed from {self.checkpoint.name}"]
        if self.damaged:
            names = ", ".join(path.name for path in self.damaged)
            start = "" if self.checkpoint is not None else ", so the run starts from the beginning"
            clauses.append(f"{names} was not written to its end and is deleted{start}")
        return self.task.words(*clauses)

    def run(self, *, audit: bool, after_step: Callable[[int], None]) -> dict[str, Any]:
        """Train, save the model, and write the result, which is returned, ready for JSON.

        Raises
        ------
        Interrupted
            After Ctrl-C, with a checkpoint saved.
        LabError
            Where a library refuses an option, or the disk is full.
        """
        for path in self.damaged:
            shutil.rmtree(path)
        with at_most(self.settings.threads), quiet(), patient() as stop:
            record = Audit(self.folder / _AUDIT) if audit else None
            trained = self._train(audit=record, stop=stop, after_step=after_step)
            if trained.result.steps < self.steps:
                msg = (
                    f"Stopped after step {trained.result.steps} of {self.steps}, with a checkpoint. Go on with: uds "
                    f"train --resume {self.folder}"
                )
                raise Interrupted(msg)
            saved = save(trained.model, tokenizer=self.task.tokenizer, base=self.task.model, folder=self.folder)
        result = {
            "policy": self.policy,
            "steps": self.steps,
            "samples": trained.result.samples,
            "losses": [[evaluation.step, evaluation.loss] for evaluation in trained.result.evaluations],
            "saved": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(saved).items()},
        }
        result["words"] = [_words(trained, result["losses"]), saved.words()]
        storage.write(self.folder / _RESULT, storage.as_json({**result, "log": trained.log}, indent=1))
        return result

    def _train(self, *, audit: Audit | None, stop: Callable[[], bool], after_step: Callable[[int], None]) -> Trained:
        folder = self.folder / _CHECKPOINTS
        try:
            return train_once(
                self.task,
                policy=self.policy,
                seed=self.seed,
                settings=self.settings,
                folder=folder,
                model=self.model,
                heldout=self.task.measure(),
                options=policy_inputs.of_target(self.task, self.policy),
                selection={"audit": audit},
                trainer_options=self.trainer_options,
                resume=self.checkpoint,
                stop=stop,
                after_step=after_step,
            )
        except Exception as error:
            if not (isinstance(error, OSError) or storage.disk_full(error)):
                raise
            what = getattr(error, "filename", None) or folder
            why = "no space left on the disk" if storage.disk_full(error) else getattr(error, "strerror", None) or error
            last, _ = last_checkpoint(folder)
            where = "the beginning" if last is None else last.name
            msg = (
                f"training ended, for {what} could not be written: {why}. Mend that, and go on from {where} with: uds "
                f"train --resume {self.folder}"
            )
            raise LabError(msg) from error
        finally:
            if audit is not None:
                audit.close()


def last_checkpoint(folder: Path, /) -> tuple[Path | None, tuple[Path, ...]]:
    """Return the latest whole checkpoint in `folder`, and later ones, which were not written to their end."""
    damaged: list[Path] = []
    for path in trainer_checkpoints.steps(folder).values():
        if not trainer_checkpoints.damage(path):
            return path, tuple(damaged)
        damaged.append(path)
    return None, tuple(damaged)


def _steps(task: Task, settings: Settings, trainer_options: TrainerOptions) -> int:
    accumulate = trainer_options.accumulate
    if not trainer_options.trl.get("packing"):
        return settings.total_steps(len(task.train), accumulate=accumulate)
    from ..training.sft_trainer import packed_rows

    what = "rows that training examples are packed into"
    return settings.total_steps(packed_rows(task, trainer_options), accumulate=accumulate, what=what)


def _words(trained: Trained, losses: list[list[float]]) -> str:
    said = f"Trained for {trained.result.steps} steps, on {trained.result.samples:,} samples."
    if losses:
        said += f" Held-out loss: {losses[0][1]:.3f} before, {losses[-1][1]:.3f} after."
        if not math.isfinite(losses[-1][1]):
            said += " That is not a number, and the model is unusable: lower the learning rate."
    return said


def _result(folder: Path) -> dict[str, Any] | None:
    path = folder / _RESULT
    if not path.is_file():
        return None
    return {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if name != "log"}


def _leftovers(folder: Path) -> tuple[str, ...]:
    """Return what a run leaves that failed, or was killed, before its first checkpoint."""
    begun = any((folder / _CHECKPOINTS).glob("checkpoint-*"))
    return () if begun else (FILE, PAGE, _SOURCE, _AUDIT, _CHECKPOINTS)


def _check_source(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Raise an error if the files of a resumed run are others than those it was started with, under whatever names."""
    path = folder / _SOURCE
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    other = sorted(name for name, value in fingerprints.items() if before.get(name, value) != value)
    if other:
        flags = " and ".join("--" + name.replace("_", "-") for name in other)
        msg = (
            f"`--resume` {folder}: the content of {flags} is not that of the run there: restore it, or start anew with "
            "another `--output`"
        )
        raise LabError(msg)


def _clear(folder: Path) -> None:
    """Delete what an earlier run left, which would otherwise be resumed."""
    shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    for path in (folder / _RESULT, folder / _SOURCE, *folder.glob("audit*.jsonl")):
        path.unlink(missing_ok=True)
