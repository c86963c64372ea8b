"""Training records: read and checked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import LabError
from . import jsonl
from .fields import Fields
from .formats import record
from .jsonl import Line
from .reader import Reader
from .record import Record

__all__ = ["Fields", "Record", "parse", "read", "record", "stream"]


def read(path: Path, /, *, fields: Fields | None = None, limit: int | None = None) -> list[Record]:
    """Return the records of a data set; see `stream`."""
    return list(stream(path, fields=fields, limit=limit))


def stream(path: Path, /, *, fields: Fields | None = None, limit: int | None = None) -> Iterator[Record]:
    """Yield the records of a data set.

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
    lines = Reader(path).lines()
    return (parse(line, path=path, fields=fields) for line in itertools.islice(lines, limit))


def parse(line: Line, /, *, path: Path, fields: Fields) -> Record:
    """Return the record of one line of the file `path`."""
    where = f"{line.file or path}:{line.line}"
    parsed = jsonl.parse(line, where=where)
    found = record(parsed.fields, where=where, number=line.line, fields=fields)
    return replace(found, replaced=parsed.replaced)
