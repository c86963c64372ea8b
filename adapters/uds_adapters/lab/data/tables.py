"""Records in files other than JSON Lines: arrays of JSON, CSV, Parquet, Arrow, and folders that `datasets` saved."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import LabError
from . import arrays, jsonl
from .files import COMPRESSED, is_saved, kind

__all__ = ["is_plain", "rows"]

_BATCH = 1024  # rows that are decoded together
_FEATHER = b"ARROW1"  # begins a file of Arrow, and no stream
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
        with _opened(file) as stream:
            yield from arrays.elements(stream, file=file)
        return
    with _opened(file) as stream:
        yield from ((line.line, line.content) for line in jsonl.lines_of(stream))


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


def _arrow(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield rows of a stream of Arrow, as `datasets` caches them, or of a file of Arrow (Feather)."""
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(file)) as mapped:
            feather = mapped.read(len(_FEATHER)) == _FEATHER
            mapped.seek(0)
            batches = _batches(pa.ipc.open_file(mapped)) if feather else pa.ipc.open_stream(mapped)
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch.slice(start, _BATCH).to_pylist():
                        number += 1
                        yield number, _dumped(row)
    except (pa.ArrowException, OSError) as error:
        msg = f"{file} is no Arrow file that can be read: {' '.join(str(error).split())}"
        raise LabError(msg) from None


def _batches(read: Any) -> Iterator[Any]:
    return (read.get_batch(number) for number in range(read.num_record_batches))


def _saved(folder: Path) -> Iterator[tuple[int, bytes]]:
    import datasets

    try:
        table = datasets.load_from_disk(str(folder), keep_in_memory=False)
    except (OSError, ValueError) as error:
        msg = f"{folder} is no data set that can be read: {' '.join(str(error).split())}"
        raise LabError(msg) from None
    for number, row in enumerate(table, start=1):
        yield number, _dumped(dict(row))


_TABLES = {"parquet": _parquet, "arrow": _arrow, "csv": _csv, "tsv": _csv}  # suffix -> reader


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
            import pyarrow as pa

            return pa.input_stream(str(file), compression="zstd")
    return file.open("rb")
