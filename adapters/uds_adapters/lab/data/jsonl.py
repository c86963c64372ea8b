"""JSONL files: lines, blank lines, and records in windows, without the whole file in memory."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import LabError
from ..storage import check_records

__all__ = ["Line", "Parsed", "Window", "limited", "lines", "lines_of", "nothing", "parse", "read", "windows"]

_MARK = b"\xef\xbb\xbf"  # that some editors begin a UTF-8 file with, and `cat` leaves between files
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BLANK = b" \t\r\n"  # white space of JSON
_SURROGATE = re.compile("[\ud800-\udfff]")


class Line(NamedTuple):
    """One line that holds a record."""

    record: int  # counted from 0, blank lines left out
    line: int  # counted from 1, blank lines too
    content: bytes  # byte for byte, without a byte order mark and without `end`
    end: bytes  # \n, \r\n, \r, or nothing at the end of a file
    file: Path | None = None  # of several


class Window(NamedTuple):
    """Consecutive records of a file."""

    offset: int  # of the first byte
    record: int  # of the first record
    line: int  # of the line at `offset`
    records: int


class Parsed(NamedTuple):
    """The JSON object of a line."""

    fields: Mapping[str, Any]
    replaced: int  # halves of surrogate pairs that were replaced by U+FFFD


def lines(path: Path, /) -> Iterator[Line]:
    r"""Yield the lines of a file that hold a record.

    A line ends with ``\n``, ``\r\n`` or ``\r``, which no JSON string holds; other separators, such as U+2028, are
    part of a line. A line is blank if it holds nothing but white space of JSON: space, tab and ends of lines.

    Raises
    ------
    LabError
        If there is no such file, or no record in it.
    """
    line = None
    for line in _lines(path, Window(0, 0, 1, -1)):
        yield line
    if line is None:
        raise LabError(nothing(path))


def lines_of(stream: BinaryIO, /) -> Iterator[Line]:
    """Yield the lines of an open file that hold a record; see `lines`."""
    return _numbered(_split(stream), Window(0, 0, 1, -1))


def nothing(path: Path, /) -> str:
    """Return the message of an error, where a file holds no records."""
    return f"{path} holds no records: expected one JSON object a line, or rows of a table"


def limited(records: int, limit: int | None, path: Path, /) -> int:
    """Return how many of the records are read.

    Raises
    ------
    LabError
        If there are none, or the limit allows none.
    """
    if limit is not None and limit < 1:
        msg = f"`limit` must be at least 1, got {limit}"
        raise LabError(msg)
    if records == 0:
        raise LabError(nothing(path))
    return records if limit is None else min(records, limit)


def windows(path: Path, /, *, size: int, limit: int | None = None) -> list[Window]:
    """Return the windows of `size` records; the last may be smaller. One pass over the file, without parsing.

    Parameters
    ----------
    path
        A JSONL file.
    size
        Number of records in a window.
    limit
        Number of records, the first ones; None: all.

    Raises
    ------
    LabError
        If there is no such file, no record in it, or the limit allows none.
    """
    limited(1, limit, path)
    found: list[Window] = []
    records, offset = 0, 0
    for line, content in enumerate(_opened(path, offset=0), start=1):
        if records == limit:
            break
        if not _blank(content):
            if records % size == 0:
                found.append(Window(offset, records, line, 0))
            found[-1] = found[-1]._replace(records=found[-1].records + 1)
            records += 1
        offset += len(content)
    if not found:
        raise LabError(nothing(path))
    return found


def read(path: Path, window: Window, /) -> Iterator[Line]:
    """Yield the lines of a window."""
    return _lines(path, window)


def parse(line: Line, /, *, where: str) -> Parsed:
    """Return the JSON object of a line; `where` names file and line, for errors.

    Halves of surrogate pairs, which are no text, become U+FFFD.

    Raises
    ------
    LabError
        If the line is no UTF-8 text, no JSON object, or holds what Python cannot: numbers of thousands of digits, or
        thousands of nested lists.
    """
    try:
        text = line.content.decode()
    except UnicodeDecodeError as error:
        wide = line.line == 1 and line.content.startswith(_WIDE_MARKS)
        hint = "; it looks like UTF-16, which `iconv -f utf-16 -t utf-8` converts" if wide else ""
        msg = f"{where} is not UTF-8 text (byte {error.start} of the line): expected one JSON object a line{hint}"
        raise LabError(msg) from None
    try:
        raw = json.loads(text)
        # nothing but an escape can hold half of a pair, since the text is UTF-8
        raw, replaced = _replaced(raw) if "\\u" in text else (raw, 0)
    except json.JSONDecodeError as error:
        msg = f"{where}: this line is not JSON ({error.msg}, column {error.colno}): expected one JSON object a line"
        raise LabError(msg) from None
    except ValueError:
        msg = f"{where}: this line holds a number of thousands of digits: shorten it, or write it as a string"
        raise LabError(msg) from None
    except RecursionError:
        msg = f"{where}: lists or objects are nested too deeply in this line: expected one JSON object of few levels"
        raise LabError(msg) from None
    if not isinstance(raw, dict):
        msg = f"{where}: expected a JSON object, got {type(raw).__name__}"
        raise LabError(msg)
    return Parsed(raw, replaced)


def _lines(path: Path, window: Window) -> Iterator[Line]:
    return _numbered(_opened(path, offset=window.offset), window)


def _numbered(contents: Iterator[bytes], window: Window) -> Iterator[Line]:
    record = window.record
    for number, content in enumerate(contents, start=window.line):
        if record == window.record + window.records:
            return
        if _blank(content):
            continue
        bare = content.rstrip(b"\r\n")
        yield Line(record, number, bare.removeprefix(_MARK), content[len(bare) :])
        record += 1


def _opened(path: Path, *, offset: int) -> Iterator[bytes]:
    """Yield all lines from a byte on, with their ends."""
    check_records(path)
    with path.open("rb") as stream:
        stream.seek(offset)
        yield from _split(stream)


def _split(stream: BinaryIO) -> Iterator[bytes]:
    # latin-1 maps each byte to one character and back; only a text stream knows all three ends of lines
    with io.TextIOWrapper(stream, encoding="latin-1", newline="") as text:
        for line in text:
            yield line.encode("latin-1")


def _blank(content: bytes) -> bool:
    return not content.removeprefix(_MARK).strip(_BLANK)


def _replaced(value: Any) -> tuple[Any, int]:
    """Replace halves of surrogate pairs in all strings of a JSON value; return it and their number."""
    if isinstance(value, str):
        return _SURROGATE.subn("\ufffd", value)
    if isinstance(value, list):
        parts = [_replaced(item) for item in value]
        return [part for part, _ in parts], sum(number for _, number in parts)
    if isinstance(value, dict):
        keys, items = [_replaced(key) for key in value], [_replaced(item) for item in value.values()]
        whole = {key: item for (key, _), (item, _) in zip(keys, items, strict=True)}
        return whole, sum(number for _, number in (*keys, *items))
    return value, 0
