"""Training records: read, checked, and split into training and held-out parts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import LabError
from . import jsonl
from .fields import Fields
from .formats import parts
from .jsonl import Line
from .messages import Turn
from .reader import Reader

__all__ = ["Fields", "Record", "parse", "read", "record", "split"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample in one of three forms: prompt and completion, messages, or text alone."""

    where: str
    """File and line."""
    line: int
    prompt: str | None = None
    """None: there is none, and the completion is a text alone."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Field -> text that follows the prompt, unless the template names the field."""
    completion: str = ""
    messages: tuple[Turn, ...] = ()
    """Empty, or a conversation that ends with the assistant."""
    dropped: int = 0
    """Messages after the assistant's last."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """That a conversation may call."""
    choices: tuple[str, ...] = ()
    """The answers that the completion is one of; empty where the record does not offer any."""
    raw: Mapping[str, Any]
    """The whole record, with fields that training does not read."""
    format: str = "prompt-completion"
    """As it was recognised."""
    used: frozenset[str] = frozenset()
    """Fields that were read."""
    replaced: int = 0
    """Characters that were no text and became U+FFFD."""


def read(path: Path, /, *, fields: Fields | None = None, limit: int | None = None) -> list[Record]:
    """Return the records of a data set.

    Parameters
    ----------
    path
        A file, a folder or a pattern of files; see `Reader`.
    fields
        Format and names of fields; the first format that a record has is taken.
    limit
        Read only the first so many records.

    Raises
    ------
    LabError
        Where there is no such file, nothing in it, or a line that is no record, named by file and line number.
    """
    fields = Fields() if fields is None else fields
    if limit is not None and limit < 1:
        msg = f"`limit` must be at least 1, got {limit}"
        raise LabError(msg)
    records: list[Record] = []
    for line in Reader(path).lines():
        records.append(parse(line, path=path, fields=fields))
        if len(records) == limit:
            break
    return records


def split(records: Sequence[Record], /, *, holdout: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, disjoint, both in the file's order; a fraction `holdout` in (0, 1) is held out."""
    if not 0.0 < holdout < 1.0:
        msg = f"`holdout` must be a fraction between 0 and 1, got {holdout}; for a file of its own use `--eval-data`"
        raise LabError(msg)
    if len(records) < 2:
        msg = f"{records[0].where}: one record cannot be split; give held-out records with `--eval-data`"
        raise LabError(msg)
    size = min(len(records) - 1, max(1, round(holdout * len(records))))
    held = set(random.Random(seed).sample(range(len(records)), size))
    return (
        [record for number, record in enumerate(records) if number not in held],
        [records[number] for number in sorted(held)],
    )


def parse(line: Line, /, *, path: Path, fields: Fields) -> Record:
    """Return the record of one line of the file `path`."""
    where = f"{line.file or path}:{line.line}"
    parsed = jsonl.parse(line, where=where)
    found = record(parsed.fields, where=where, number=line.line, fields=fields)
    return replace(found, replaced=parsed.replaced)


def record(raw: Mapping[str, Any], /, *, where: str, number: int, fields: Fields) -> Record:
    """Return the record with the fields `raw`, whatever they were read from."""
    choices = _choices(raw.get(fields.choices))
    found = parts(raw, fields=fields, choices=choices, where=where)
    used = found.used | ({fields.choices} if choices else set())
    return Record(where=where, line=number, raw=raw, choices=choices, **{**vars(found), "used": used})


def _choices(value: Any) -> tuple[str, ...]:
    """Of a field that only some metrics read: what is no list of strings is none."""
    sound = isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    return tuple(value) if sound else ()
