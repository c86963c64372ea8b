"""Records in files other than JSON Lines: arrays of JSON, CSV, Parquet, and folders that `datasets` saved."""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib
import io
import json
import lzma
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import LabError
from . import jsonl
from .files import COMPRESSED, is_saved, kind

__all__ = ["is_plain", "rows"]

_BATCH = 1024  # rows that are decoded together
_SPACE = re.compile(r"[ \t\r\n]*")
_BREAK = re.compile(r"\r\n|\r|\n")
_LONGEST = 2**31 - 1  # characters in a field of CSV; by default 131,072


def is_plain(file: Path, /) -> bool:
    """Return whether a file is JSON Lines that are not compressed, which can be read from any place."""
    if is_saved(file) or kind(file) in _TABLES or _compression(file):
        return False
    return kind(file) in ("jsonl", "ndjson") or not _is_array(file)


def rows(file: Path, /) -> Iterator[tuple[int, bytes]]:
    """Yield the line, or where a format has none the number from 1, of each record, and the record as JSON.

    Raises
    ------
    LabError
        If the file is not what its name says.
    """
    if is_saved(file):
        return _saved(file)
    return _TABLES.get(kind(file), _json)(file)


def _json(file: Path) -> Iterator[tuple[int, bytes]]:
    if kind(file) not in ("jsonl", "ndjson") and _is_array(file):
        yield from _array(file)
        return
    with _opened(file) as stream:
        yield from ((line.line, line.content) for line in jsonl.lines_of(stream))


def _array(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of one JSON array, each with the line where it begins."""
    with _opened(file) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 text (byte {error.start}): expected an array of JSON objects"
        raise LabError(msg) from None
    decoder, place = json.JSONDecoder(), text.index("[") + 1
    line, counted, expected = 1, 0, "element or end"
    while True:
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr] - it matches nothing, too
        line, counted = line + text.count("\n", counted, place), place
        sign = text[place : place + 1]
        if sign == "]" and expected != "element":
            break
        if expected == "comma or end":
            if sign != ",":
                msg = f"{file}:{line}: expected a comma or the end of the array"
                raise LabError(msg)
            place, expected = place + 1, "element"
            continue
        end = _end(decoder, text, place, file)
        # strings of JSON hold no ends of lines, so those are white space
        yield line, b" ".join(text[place:end].encode().splitlines())
        place, expected = end, "comma or end"
    if text[place + 1 :].strip():
        msg = f"{file}:{line}: text after the end of the array: expected one array of JSON objects"
        raise LabError(msg)


def _end(decoder: json.JSONDecoder, text: str, place: int, file: Path) -> int:
    """Return where a value of JSON ends."""
    try:
        return decoder.raw_decode(text, place)[1]
    except json.JSONDecodeError as error:
        msg = f"{file}:{error.lineno}: this array is not JSON ({error.msg}, column {error.colno})"
        raise LabError(msg) from None
    except (ValueError, RecursionError):
        return len(text)  # what Python cannot hold is named by the parser of records


def _csv(file: Path) -> Iterator[tuple[int, bytes]]:
    separator = "\t" if kind(file) == "tsv" else ","
    before = csv.field_size_limit(_LONGEST)
    line = 1
    try:
        with _opened(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            table = csv.DictReader(text, delimiter=separator, strict=True)
            for row in table:
                line = table.line_num - sum(len(_BREAK.findall(v)) for v in row.values() if isinstance(v, str))
                if None in row:
                    names = len(table.fieldnames or ())
                    msg = f"{file}:{line}: more fields than the {names} that the first line names"
                    raise LabError(msg)
                yield line, _dumped(row)
    except csv.Error as error:
        msg = f"{file}:{line + 1}: this is not CSV ({error}): expected a first line of names, and quoted text"
        raise LabError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 text ({error.reason} after line {line}): save it as UTF-8"
        raise LabError(msg) from None
    finally:
        csv.field_size_limit(before)


def _parquet(file: Path) -> Iterator[tuple[int, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _dumped(row)
    except (pa.ArrowException, OSError) as error:
        msg = f"{file} is no Parquet file that can be read: {' '.join(str(error).split())}"
        raise LabError(msg) from None


def _saved(folder: Path) -> Iterator[tuple[int, bytes]]:
    import datasets

    try:
        table = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except (OSError, ValueError) as error:
        msg = f"{folder} is no data set that can be read: {' '.join(str(error).split())}"
        raise LabError(msg) from None
    for number, row in enumerate(table, start=1):
        yield number, _dumped(dict(row))


_TABLES = {"parquet": _parquet, "csv": _csv, "tsv": _csv}  # suffix -> reader


def _dumped(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, default=str).encode()


def _is_array(file: Path) -> bool:
    with _opened(file) as stream:
        while block := stream.read(4096):
            if text := block.removeprefix(b"\xef\xbb\xbf").lstrip():
                return text.startswith(b"[")
    return False


def _compression(file: Path) -> str:
    suffix = file.suffix[1:].lower()
    return suffix if suffix in COMPRESSED else ""


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed."""
    try:
        with _decompressed(file) as stream:
            yield stream
    except (gzip.BadGzipFile, lzma.LZMAError, EOFError, OSError) as error:
        if not _compression(file) or isinstance(error, FileNotFoundError):
            raise
        msg = f"{file} is no whole {_compression(file)} file: {error}"
        raise LabError(msg) from None


def _decompressed(file: Path) -> Any:
    match _compression(file):
        case "gz":
            return gzip.open(file)
        case "bz2":
            return bz2.open(file)
        case "xz":
            return lzma.open(file)
        case "zst":
            return _zstandard(file)
    return file.open("rb")


def _zstandard(file: Path) -> Any:
    for name in ("compression.zstd", "zstandard"):  # of Python from 3.14 on, and the package
        try:
            return importlib.import_module(name).open(file, "rb")
        except ModuleNotFoundError:
            continue
    msg = f"{file} is compressed with zstd, which needs a package: pip install zstandard"
    raise LabError(msg)
