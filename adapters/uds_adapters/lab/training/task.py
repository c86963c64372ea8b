"""A task: model folder, training examples, and held-out examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import records as data
from ..data.encoding import Collator, EncodedRecords, Encoder, Example, pad_id
from ..data.source import Source
from ..data.summary import Summary
from ..errors import LabError, LabWarning
from ..evaluation.accuracy import MultipleChoice
from ..evaluation.exact_match import ExactMatch
from ..evaluation.heldout import HeldOut
from ..models import context, load_model, load_tokenizer, quiet, vocabulary
from .settings import Settings

__all__ = ["Task", "encoder_of", "prepare"]


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
    summary: Summary
    """Records that were left out, and what else is worth knowing of the data."""

    @property
    def left_out(self) -> int:
        """Number of records that were left out."""
        return self.summary.total_left_out

    def words(self, *clauses: str) -> str:
        """Return what was read, in a sentence or more; `clauses` are added to the first."""
        text = f"{len(self.train)} training examples, {len(self.heldout)} held out"
        if self.aside:
            text += f", {len(self.aside)} set aside for policies that need samples of their own"
        reasons = self.summary.reasons()
        sentence = "; ".join([text, *([reasons] if reasons else []), *clauses]) + "."
        return " ".join([sentence, *self.summary.notes()])

    def load_model(self, *, lora: bool = False) -> Any:
        """Load the model in its folder, checked; with `lora`, LoRA adapters there are not merged, but train.

        Raises
        ------
        LabError
            If it cannot be loaded, or if its weights do not match it.
        """
        with quiet():
            return load_model(self.model, lora=lora)

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
        encoder = encoder_of(source)
        parts = [
            _encoded(name, records, encoder)
            for name, records in (("training", train), ("held-out", heldout), ("set-aside", aside))
        ]
    _warn_of_overlap(parts[0].examples, parts[1].examples)
    return Task(
        model=source.model,
        tokenizer=encoder.tokenizer,
        encoder=encoder,
        collator=Collator(pad_id(encoder.tokenizer)),
        train=parts[0].examples,
        heldout=parts[1].examples,
        aside=parts[2].examples,
        records=parts[0].records,
        heldout_records=parts[1].records,
        summary=Summary.joined(part.summary for part in parts),
    )


def encoder_of(source: Source, /) -> Encoder:
    """Return what makes examples of a source's records: the tokenizer in the model's folder, without the model.

    Raises
    ------
    LabError
        If the folder holds no tokenizer.
    """
    return Encoder(
        tokenizer=load_tokenizer(source.model),
        template=source.template,
        train_on=source.train_on,
        max_length=source.max_length,
        context=context(source.model),
        vocabulary=vocabulary(source.model),
    )


def _warn_of_overlap(train: Sequence[Example], heldout: Sequence[Example]) -> None:
    known = {tuple(example["input_ids"]) for example in train}
    number = sum(tuple(example["input_ids"]) in known for example in heldout)
    if number:
        msg = (
            f"{number} of {len(heldout)} held-out records are training records too, so that the held-out loss says "
            "less about unseen ones: remove duplicates from the data, or name other records with `--eval-data`"
        )
        warnings.warn(msg, LabWarning, stacklevel=3)


def _encoded(name: str, records: list[data.Record], encoder: Encoder) -> EncodedRecords:
    found = encoder.encode(records)
    if records and not found.examples:
        raise LabError(found.summary.nothing(f"{name} record"))
    return found


def _records(source: Source, seed: int) -> tuple[list[data.Record], list[data.Record]]:
    if source.eval_data is not None:
        heldout = data.read(source.eval_data, fields=source.fields, limit=source.eval_limit)
        return data.read(source.data, fields=source.fields, limit=source.limit), heldout
    records = data.read(source.data, fields=source.fields)
    if source.holdout == 0:
        return records[: source.limit], []
    train, heldout = data.split(records, holdout=source.holdout, seed=seed)
    size = source.eval_limit
    if size is None and source.limit is not None:  # as large a fraction as of all records
        size = max(1, round(source.limit * source.holdout / (1.0 - source.holdout)))
    return train[: source.limit], heldout[:size]
