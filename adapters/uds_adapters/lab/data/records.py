"""Training records: read, checked, and split into training and held-out parts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import LabError
from . import jsonl
from .fields import Fields
from .formats import record
from .jsonl import Line
from .reader import Reader
from .record import Record

__all__ = ["Fields", "Record", "parse", "read", "record", "split"]


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
