"""Previews: statistics of a data set, and some of its records as the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from statistics import median
from typing import NamedTuple

from ...batches import IGNORE
from ..data.encoding import Encoder, Example
from ..data.records import Record
from ..data.summary import REASONS, Summary
from ..duplicates.search import search
from ..duplicates.sketches import sketched
from .sample import place, sample
from .values import Columns, LeftOut, Preview

__all__ = ["Repeat", "preview", "repeated"]

THRESHOLD = 0.5  # of near-duplicates, as `uds dedup` has it


class Repeat(NamedTuple):
    """The first of several near-duplicates, as a later one refers to it."""

    original: int
    similarity: float  # fraction of n-grams in common
    equal: bool  # the same words


def preview(
    records: Sequence[Record],
    examples: Sequence[Example],
    summary: Summary,
    /,
    *,
    encoder: Encoder,
    number: int = 4,
    asked: Sequence[Record] | None = None,
    left_out: Sequence[Record] = (),
    more: bool = False,
) -> Preview:
    """Return a preview of records and the examples that were made of them.

    Parameters
    ----------
    records, examples
        That are trained on, in the same order.
    summary
        Of all that was read.
    encoder
        That made the examples.
    number
        Records that are shown: of each kind one (cut off, near-duplicate), and others from all parts of the data.
    asked
        Records to show in place of all others, also ones that are left out.
    left_out
        Records to show beside those.
    more
        Whether the data set holds others, which were not read.
    """
    lengths = [len(example["input_ids"]) for example in examples]
    repeats = repeated(records)
    if asked is None:
        cut = (index for index, length in enumerate(lengths) if length == summary.length)
        cut = (index for index in cut if encoder.encode([records[index]]).summary.cut)
        kinds = [*islice(range(len(records)), 1), *islice(cut, 1 if summary.cut else 0), *islice(repeats, 1)]
        asked = [*(records[index] for index in _shown(kinds, number, of=len(records))), *left_out]
    by_place = {records[index].where: repeat for index, repeat in repeats.items()}
    shown = []
    for record in asked:
        repeat = by_place.get(record.where)
        first = None if repeat is None else place(records[repeat.original].where)
        similarity = 0.0 if repeat is None else repeat.similarity
        shown.append(sample(record, encoder=encoder, repeats=first, similarity=similarity))
    return Preview(
        records=len(records),
        more=more,
        max_length=summary.length,
        tokens=sum(lengths),
        trained=sum(label != IGNORE for example in examples for label in example["labels"][1:]),
        median=median(lengths) if lengths else 0,
        longest=max(lengths, default=0),
        cut=summary.cut,
        near_duplicates=len(repeats),
        equal=sum(repeat.equal for repeat in repeats.values()),
        formats=_formats(records),
        left_out=tuple(
            LeftOut(
                reason=REASONS[reason].format(length=summary.length),
                records=count,
                places=tuple(map(place, summary.places.get(reason, ()))),
            )
            for reason, count in summary.left_out.items()
            if count
        ),
        notes=(*summary.ignored(), *_outside_chat(records, encoder)),
        samples=tuple(shown),
    )


def repeated(records: Sequence[Record], /) -> dict[int, Repeat]:
    """Return the near-duplicates of earlier records, by their index."""
    if not records:
        return {}
    found = search(sketched(records), threshold=THRESHOLD)
    every = zip(found.original.tolist(), found.similarity.tolist(), found.equal.tolist(), strict=True)
    return {index: Repeat(*one) for index, one in enumerate(every) if one[0] >= 0}


def _formats(records: Sequence[Record]) -> tuple[Columns, ...]:
    numbers: dict[str, int] = {}
    used: dict[str, dict[str, None]] = {}  # names in order
    for record in records:
        numbers[record.format] = numbers.get(record.format, 0) + 1
        names = used.setdefault(record.format, {})
        names.update(dict.fromkeys(name for name in record.raw if name in record.used))
    return tuple(Columns(format=name, records=count, used=tuple(used[name])) for name, count in numbers.items())


def _outside_chat(records: Sequence[Record], encoder: Encoder) -> list[str]:
    """Return a sentence where records do not go through a chat template that the tokenizer has."""
    if not encoder.tokenizer.chat_template or all(record.messages for record in records):
        return []
    words = "The tokenizer has a chat template, and only conversations go through it: `--template` joins the others."
    return [words]


def _shown(first: Sequence[int], number: int, /, *, of: int) -> list[int]:
    """Return `number` indices: those in `first`, and others evenly spaced."""
    spaced = (place * of // number for place in range(number) if of)
    rest = (index for index in range(of))
    return sorted(islice(dict.fromkeys([*first, *spaced, *islice(rest, number)]), number))
