"""A task: model folder, training examples, and held-out examples."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import records as data
from ..data import target
from ..data.encoding import Collator, Encoder, Example, pad_id
from ..data.examples import Examples
from ..data.partition import ASIDE, HELDOUT, TRAIN, UNUSED, partition
from ..data.reader import Reader
from ..data.source import Source
from ..data.summary import Summary
from ..errors import LabError, LabWarning
from ..evaluation.accuracy import MultipleChoice
from ..evaluation.exact_match import ExactMatch
from ..evaluation.heldout import HeldOut
from ..models import context, load_model, load_tokenizer, quiet, vocabulary
from .settings import Settings

__all__ = ["Task", "encoder_of", "prepare"]

_WINDOW = 1024  # records that are encoded together


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `Source`, read and encoded."""

    model: Path
    tokenizer: Any
    encoder: Encoder
    collator: Collator
    train: Sequence[Example]
    heldout: Sequence[Example]
    aside: Sequence[Example]
    """Set aside for policies that need samples of their own; not candidates."""
    target: list[Example]
    """What the model must do, for policies that choose what resembles it."""
    records: list[data.Record]
    """Records of the training examples, in their order; none where the examples are in files."""
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
        if self.target:
            text += f", {len(self.target)} of a target"
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
        if not len(self.heldout):
            return None
        settings = Settings() if settings is None else settings
        records, answers = self.heldout_records, {}
        if "accuracy" in settings.metrics:
            answers["accuracy"] = MultipleChoice(records, encoder=self.encoder, collator=self.collator)
        if "exact_match" in settings.metrics:
            answers["exact_match"] = ExactMatch(records, encoder=self.encoder, new_tokens=settings.answer_tokens)
        return HeldOut(self.heldout, collator=self.collator, answers=answers)


def prepare(source: Source, /, *, seed: int, folder: Path | None = None) -> Task:
    """Read and encode; `seed` decides which records are held out, where they have no file of their own.

    Parameters
    ----------
    folder
        Where examples are written, so that memory does not grow with their number; records are not kept then. None:
        all is in memory.

    Raises
    ------
    LabError
        Where a file, a record, a folder or an option is invalid.
    """
    names = {TRAIN: "training", HELDOUT: "held-out", ASIDE: "set-aside"}
    parts = {part: Examples(None if folder is None else folder / f"{name}.arrow") for part, name in names.items()}
    with quiet():
        encoder = encoder_of(source)
        for part, records in _windows(source, seed):
            parts[part].add(encoder.encode(records))
    examples = {part: found.done() for part, found in parts.items()}
    summaries = {part: found.summary() for part, found in parts.items()}
    for part, summary in summaries.items():
        if summary is not None and not len(examples[part]):
            raise LabError(summary.nothing(f"{names[part]} record"))
    _warn_of_overlap(parts[TRAIN].digests, parts[HELDOUT].digests)
    return Task(
        model=source.model,
        tokenizer=encoder.tokenizer,
        encoder=encoder,
        collator=Collator(pad_id(encoder.tokenizer)),
        train=examples[TRAIN],
        heldout=examples[HELDOUT],
        aside=examples[ASIDE],
        target=[] if source.target is None else target.examples(source, encoder),
        records=parts[TRAIN].records,
        heldout_records=parts[HELDOUT].records,
        summary=Summary.joined(summary for summary in summaries.values() if summary is not None),
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


def _warn_of_overlap(train: Sequence[int], heldout: Sequence[int]) -> None:
    """Warn of held-out examples that are training examples; both by hashes of their tokens."""
    asked = {*heldout}
    known = {digest for digest in train if digest in asked}
    number = sum(digest in known for digest in heldout)
    if number:
        msg = (
            f"{number} of {len(heldout)} held-out records are training records too, so that the held-out loss says "
            "less about unseen ones: remove duplicates from the data, or name other records with `--eval-data`"
        )
        warnings.warn(msg, LabWarning, stacklevel=3)


def _windows(source: Source, seed: int) -> Iterator[tuple[int, list[data.Record]]]:
    """Yield windows of records, each of one part: training, held-out or set aside."""
    if source.eval_data is not None:
        heldout = data.stream(source.eval_data, fields=source.fields, limit=source.eval_limit)
        yield from ((HELDOUT, window) for window in _cut(heldout))
    data.read(source.data, fields=source.fields, limit=1)  # a first record that is none matters more than their number
    total = Reader(source.data).count()
    parts = partition(
        total,
        path=source.data,
        holdout=source.holdout if source.eval_data is None else 0.0,
        aside=source.aside,
        limit=source.limit,
        eval_limit=source.eval_limit,
        seed=seed,
    )
    waiting: dict[int, list[data.Record]] = {TRAIN: [], HELDOUT: [], ASIDE: []}
    used = len(parts.rstrip(bytes([UNUSED])))
    for part, record in zip(parts, data.stream(source.data, fields=source.fields, limit=used), strict=False):
        if part == UNUSED:
            continue
        waiting[part].append(record)
        if len(waiting[part]) == _WINDOW:
            yield part, waiting[part]
            waiting[part] = []
    yield from ((part, records) for part, records in waiting.items() if records)


def _cut(records: Iterator[data.Record]) -> Iterator[list[data.Record]]:
    while window := list(itertools.islice(records, _WINDOW)):
        yield window
