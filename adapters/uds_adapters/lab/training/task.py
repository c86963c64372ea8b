"""A task: model folder, training examples, and held-out examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import records as data
from ..data.encoding import Collator, Encoder, Example, pad_id
from ..data.source import Source
from ..errors import LabError
from ..evaluation.accuracy import MultipleChoice
from ..evaluation.exact_match import ExactMatch
from ..evaluation.heldout import HeldOut
from ..models import context, load_tokenizer, quiet
from .settings import Settings

__all__ = ["Task", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `Source`, read and encoded."""

    model: Path
    tokenizer: Any
    encoder: Encoder
    collator: Collator
    train: list[Example]
    heldout: list[Example]
    aside: list[Example]
    """Set aside for policies that need samples of their own; not candidates."""
    records: list[data.Record]
    """Records of the training examples, in their order."""
    heldout_records: list[data.Record]
    left_out: int
    """Records without a trained token within `max_length`."""

    def measure(self, settings: Settings | None = None, /) -> HeldOut | None:
        """Return the measurement of the held-out loss and the metrics asked for; None where nothing is held out.

        Raises
        ------
        LabError
            Where a held-out record lacks what a metric needs.
        """
        if not self.heldout:
            return None
        settings = Settings() if settings is None else settings
        records, answers = self.heldout_records, {}
        if "accuracy" in settings.metrics:
            answers["accuracy"] = MultipleChoice(records, encoder=self.encoder, collator=self.collator)
        if "exact_match" in settings.metrics:
            answers["exact_match"] = ExactMatch(records, encoder=self.encoder, new_tokens=settings.answer_tokens)
        return HeldOut(self.heldout, collator=self.collator, answers=answers)


def prepare(source: Source, /, *, seed: int) -> Task:
    """Read and encode; `seed` decides which records are held out, where they have no file of their own.

    Raises
    ------
    LabError
        Where a file, a record, a folder or an option is invalid.
    """
    train, heldout = _records(source, seed)
    train, aside = data.split(train, holdout=source.aside, seed=seed) if source.aside else (train, [])
    with quiet():
        tokenizer = load_tokenizer(source.model)
        encoder = Encoder(
            tokenizer=tokenizer,
            template=source.template,
            max_length=source.max_length,
            context=context(source.model),
        )
        examples, kept = encoder(train)
        measured, measured_records = encoder(heldout)
        kept_aside, _ = encoder(aside)
    parts = ("training", train, examples), ("held-out", heldout, measured), ("set-aside", aside, kept_aside)
    for name, read, encoded in parts:
        if read and not encoded:
            msg = f"no {name} record has a completion within `max_length` = {source.max_length} tokens: raise it"
            raise LabError(msg)
    return Task(
        model=source.model,
        tokenizer=tokenizer,
        encoder=encoder,
        collator=Collator(pad_id(tokenizer)),
        train=examples,
        heldout=measured,
        aside=kept_aside,
        records=kept,
        heldout_records=measured_records,
        left_out=sum(len(read) - len(encoded) for _, read, encoded in parts),
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
