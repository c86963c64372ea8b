"""Fine-tuning through TRL: checkpoints that a run goes on from bit for bit, and a model at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig

from ...audit import Audit
from ...scoring.scorer import evaluating
from ...trl import UDSSFTTrainer
from ..errors import LabError
from ..evaluation.heldout import HeldOut
from ..models import load_model, with_lora
from ..training.task import Task
from .settings import Training

__all__ = ["Trained", "check", "fine_tune", "last_checkpoint", "rows"]

_COUNTS, _STATE = "counts.json", "trainer_state.json"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run did until it ended, or was asked to stop."""

    step: int
    steps: int
    """Of the whole run."""
    samples: int
    """Trained on, those before a resume among them."""
    log: list[dict[str, Any]]
    """What trackers are told; `eval_loss` is the held-out loss."""
    model: Any
    """Whose weights are trained; adapters on it, where they are."""


def fine_tune(
    task: Task,
    training: Training,
    /,
    *,
    steps: int,
    folder: Path,
    max_length: int,
    audit: Path | None = None,
    resume: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    after_step: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train the task's model, until the end or until `stop` says so, which leaves a checkpoint.

    Parameters
    ----------
    task
        Model and data.
    training
        How.
    steps
        Of the whole run.
    folder
        For checkpoints.
    max_length
        Tokens of a row, where TRL packs samples.
    audit
        File for the record of every choice.
    resume
        A checkpoint to go on from.
    stop
        Asked after each step.
    after_step
        Told the number of steps done.

    Raises
    ------
    LabError
        Where TRL refuses an option, or the disk is full.
    """
    with _as_lab_error():
        trainer = _trainer(task, training, steps=steps, folder=folder, max_length=max_length, audit=audit)
    every = training.evaluation_steps(steps)
    trainer.add_callback(_Course(trainer, every=every, stop=stop, after_step=after_step))
    try:
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    except OSError as error:
        msg = f"training ended, for {error.filename or folder} could not be written: {error.strerror or error}"
        raise LabError(msg) from error
    finally:
        if trainer.selector.audit is not None:
            trainer.selector.audit.close()
    return Trained(
        step=trainer.state.global_step,
        steps=steps,
        samples=trainer.samples,
        log=trainer.state.log_history,
        model=trainer.model,
    )


def rows(task: Task, training: Training, /, *, max_length: int) -> int:
    """Rows that the training data make: one a sample, or as many as TRL packs them into."""
    if not training.trl.get("packing"):
        return len(task.train)
    samples = datasets.Dataset.from_list([{"input_ids": list(example["input_ids"])} for example in task.train])
    length = training.trl.get("max_length") or max_length
    with _as_lab_error(), _no_bars():
        return len(pack_dataset(samples, length, training.trl.get("packing_strategy", "bfd")))


def check(training: Training, /, *, steps: int, folder: Path, max_length: int) -> None:
    """Raise what TRL, a tracker or the schedule would refuse, before anything is read or written.

    Raises
    ------
    LabError
        With their own words.
    """
    with _as_lab_error():
        training.schedule(steps).check(training.make_policy())
        _arguments(training, steps=steps, folder=folder, max_length=max_length)
        for tracker in get_reporting_integration_callbacks(list(training.report_to)):
            tracker()  # asks for its package


def last_checkpoint(folder: Path, /) -> Path | None:
    """The latest whole checkpoint in `folder`; one that was not written to its end is passed over."""
    found = {int(path.name.partition("-")[2]): path for path in folder.glob("checkpoint-*[0-9]") if _whole(path)}
    return found[max(found)] if found else None


class _Trainer(UDSSFTTrainer):
    """TRL's, evaluated by the lab's held-out loss, and counting samples across resumes."""

    heldout: HeldOut | None = None
    samples: int = 0

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The held-out loss, told to trackers as `eval_loss`; nothing where nothing is held out."""
        if self.heldout is None:
            return {}
        with evaluating(cast("torch.nn.Module", self.model)):
            logs = {"eval_loss": self.heldout(self.model)}
            self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs

    def _uds_chosen(self) -> None:
        super()._uds_chosen()
        self.samples += len(self.selector.last_indices)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        Path(output_dir, _COUNTS).write_text(json.dumps({"samples": self.samples}), encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.samples = json.loads(Path(checkpoint, _COUNTS).read_text(encoding="utf-8"))["samples"]


class _Course(TrainerCallback):
    """Evaluates before the first step, and when it is time; on demand asks for a checkpoint and the end."""

    def __init__(
        self, trainer: _Trainer, *, every: int, stop: Callable[[], bool], after_step: Callable[[int], None]
    ) -> None:
        self.trainer, self.every, self.stop, self.after_step = trainer, every, stop, after_step

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """The Trainer is ready."""
        if state.global_step == 0:
            self.trainer.evaluate()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done."""
        self.after_step(state.global_step)
        last = state.global_step == state.max_steps
        control.should_evaluate = last or state.global_step % self.every == 0
        if self.stop() and not last:
            control.should_save = control.should_training_stop = True


def _trainer(
    task: Task, training: Training, *, steps: int, folder: Path, max_length: int, audit: Path | None
) -> _Trainer:
    model = load_model(task.model)
    if training.lora_rank is not None:
        model = with_lora(model, rank=training.lora_rank, seed=training.seed)
    plain = _plain(training)
    selection = {
        "schedule": training.schedule(steps),
        "audit": None if audit is None else Audit(audit),
        "id_field": "index" if plain else None,  # documents that TRL packed have no identity any more
    }
    with _no_bars():
        trainer = _Trainer(
            model=model,
            args=_arguments(training, steps=steps, folder=folder, max_length=max_length),
            train_dataset=datasets.Dataset.from_list([dict(example) for example in task.train]),
            data_collator=task.collator if plain else None,
            processing_class=task.tokenizer,
            policy=training.make_policy(),
            scope=cast("Literal['micro', 'step']", training.scope),
            selection=selection,
        )
    trainer.remove_callback(PrinterCallback)
    trainer.heldout = task.measure()
    return trainer


def _arguments(training: Training, *, steps: int, folder: Path, max_length: int) -> SFTConfig:
    plain = _plain(training)
    ours = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": training.batch_size,
        "gradient_accumulation_steps": training.accumulate,
        "learning_rate": training.learning_rate,
        "bf16": training.bf16,
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "save_strategy": "steps",
        "save_steps": training.checkpoint_steps(steps),
        "save_total_limit": training.checkpoints,
        "report_to": list(training.report_to) or "none",
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "disable_tqdm": True,
    }
    usual = {
        "max_length": max_length if plain or training.trl.get("packing") else None,
        "lr_scheduler_type": "linear",
        "warmup_steps": steps // 20,
        "logging_steps": max(1, steps // 100),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "dataset_kwargs": {"skip_prepare_dataset": True} if plain else None,
    }
    _check_further(training.trl, ours)
    return SFTConfig(**{**usual, **training.trl, **ours})


def _plain(training: Training) -> bool:
    """Whether a row of a batch is one sample."""
    return not (training.trl.get("packing") or training.trl.get("padding_free"))


def _check_further(further: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    names = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    for name in further:
        if name in ours:
            msg = f"`--trl` {name}: an option of `uds train` sets it already; see `uds train --help`"
            raise LabError(msg)
        if name not in names:
            msg = f"`--trl` {name}: trl.SFTConfig has no such argument"
            raise LabError(msg)


def _whole(checkpoint: Path) -> bool:
    try:
        # the Trainer writes it last
        return isinstance(json.loads((checkpoint / _STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _as_lab_error() -> Iterator[None]:
    """What libraries say of options that do not go together is for the user to read."""
    try:
        yield
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise LabError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """No bars of datasets; as before afterwards."""
    shown = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()
