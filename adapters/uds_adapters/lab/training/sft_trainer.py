"""TRL's trainer with a policy and a record, and the rows that it packs samples into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import datasets
from trl.data_utils import pack_dataset
from trl.trainer.sft_trainer import SFTTrainer

from .arguments import as_lab_error
from .recording_trainer import RecordingMixin
from .task import Task
from .trainer_options import TrainerOptions

__all__ = ["RecordingSFTTrainer", "packed_rows", "sft_trainer"]


class RecordingSFTTrainer(RecordingMixin, SFTTrainer):
    """`trl.SFTTrainer` with a policy and a record; it computes its loss without logits of its own accord."""

    bounded = False


def sft_trainer(given: dict[str, Any], /, *, plain: bool) -> RecordingSFTTrainer:
    """Return the trainer of the arguments `given`; unless `plain`, TRL makes the batches."""
    given["train_dataset"] = _dataset(given["train_dataset"])
    if not plain:
        given["data_collator"] = None
        given["selection"]["id_field"] = None  # documents that TRL packed have no id any more
    with _no_bars():
        return RecordingSFTTrainer(**given)


def packed_rows(task: Task, extra: TrainerOptions, /) -> int:
    """Return how many rows TRL packs the training samples into."""
    samples = _dataset(task.train).select_columns("input_ids")
    length = extra.trl.get("max_length") or task.encoder.max_length
    with as_lab_error(), _no_bars():
        return len(pack_dataset(samples, length, extra.trl.get("packing_strategy", "bfd")))


def _dataset(examples: Any) -> datasets.Dataset:
    if isinstance(examples, datasets.Dataset):
        return examples
    return datasets.Dataset.from_list([dict(example) for example in examples])


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the progress bars of datasets."""
    shown = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()
