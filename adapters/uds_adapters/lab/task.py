"""What is to be learnt: a model folder, training examples, and the examples it is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import data
from .encode import Collator, Encoder, Example, pad_id
from .errors import LabError
from .evaluate import HeldOut
from .model import load_tokenizer, quiet
from .settings import Source

__all__ = ["Task", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `Source`, read and encoded."""

    model: Path
    tokenizer: Any
    collator: Collator
    train: list[Example]
    heldout: list[Example]
    records: list[data.Record]
    """Of the training examples, in their order."""
    left_out: int
    """Records without a trained token within `max_length`."""

    def measure(self) -> HeldOut | None:
        """The held-out loss; None where nothing is held out."""
        return HeldOut(self.heldout, collator=self.collator) if self.heldout else None


def prepare(source: Source, /, *, seed: int) -> Task:
    """Read and encode; `seed` decides which records are held out, where they have no file of their own.

    Raises
    ------
    LabError
        Where a file, a record, a folder or an option is not as it should be.
    """
    train, heldout = _records(source, seed)
    with quiet():
        tokenizer = load_tokenizer(source.model)
        encoder = Encoder(tokenizer=tokenizer, template=source.template, max_length=source.max_length)
        examples, kept = encoder(train)
        measured, _ = encoder(heldout)
    for name, read, encoded in (("training", train, examples), ("held-out", heldout, measured)):
        if read and not encoded:
            msg = f"no {name} record has a completion within `max_length` = {source.max_length} tokens: raise it"
            raise LabError(msg)
    return Task(
        model=source.model,
        tokenizer=tokenizer,
        collator=Collator(pad_id(tokenizer)),
        train=examples,
        heldout=measured,
        records=kept,
        left_out=len(train) + len(heldout) - len(examples) - len(measured),
    )


def _records(source: Source, seed: int) -> tuple[list[data.Record], list[data.Record]]:
    if source.eval_data is not None:
        heldout = data.read(source.eval_data, fields=source.fields, limit=source.eval_limit)
        return data.read(source.data, fields=source.fields, limit=source.limit), heldout
    records = data.read(source.data, fields=source.fields)
    if source.holdout == 0:
        return records[: source.limit], []
    train, heldout = data.split(records, holdout=source.holdout, seed=seed)
    return train[: source.limit], heldout[: source.eval_limit]
