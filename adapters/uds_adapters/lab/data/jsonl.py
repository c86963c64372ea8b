"""JSONL files read in windows, without the whole file in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..errors import LabError
from ..storage import check_records

__all__ = ["Line", "Window", "read", "windows"]

_MARK = b"\xef\xbb\xbf"  # that some editors begin a UTF-8 file with


class Line(NamedTuple):
    """One line that holds a record, byte for byte, without its end."""

    record: int  # counted from 0, blank lines left out
    line: int  # counted from 1, blank lines too
    content: bytes


class Window(NamedTuple):
    """Consecutive records of a file."""

    offset: int  # of the first byte
    record: int  # of the first record
    line: int  # of the line at `offset`
    records: int


def windows(path: Path, /, *, size: int, limit: int | None = None) -> list[Window]:
    """Where the windows of `size` records lie; the last may be smaller. One pass over the file, without parsing.

    `limit`: of the first so many records.

    Raises
    ------
    LabError
        Where there is no such file, no record in it, or the limit allows none.
    """
    check_records(path)
    if limit is not None and limit < 1:
        msg = f"`limit` must be at least 1, got {limit}"
        raise LabError(msg)
    found: list[Window] = []
    records, offset = 0, 0
    with path.open("rb") as stream:
        for line, content in enumerate(stream, start=1):
            if records == limit:
                break
            if _holds(content):
                if records % size == 0:
                    found.append(Window(offset, records, line, 0))
                found[-1] = found[-1]._replace(records=found[-1].records + 1)
                records += 1
            offset += len(content)
    if not found:
        msg = f"{path} holds no records: expected one JSON object a line"
        raise LabError(msg)
    return found


def read(path: Path, window: Window, /) -> Iterator[Line]:
    """The lines of a window."""
    with path.open("rb") as stream:
        stream.seek(window.offset)
        yield from _lines(stream, window)


def _lines(stream: BinaryIO, window: Window) -> Iterator[Line]:
    record = window.record
    for line, content in enumerate(stream, start=window.line):
        if record == window.record + window.records:
            return
        if _holds(content):
            yield Line(record, line, content.removeprefix(_MARK if line == 1 else b"").removesuffix(b"\n"))
            record += 1


def _holds(content: bytes) -> bool:
    return bool(content.removeprefix(_MARK).strip())
