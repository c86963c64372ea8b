"""Files of an audit: JSON Lines or Parquet parts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .atomic_write import write_atomically

__all__ = ["AuditFiles", "sync"]


class AuditFiles:
    """Numbered finished parts, oldest first, and the open file, always JSON Lines."""

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".jsonl", ".parquet"):
            msg = f"`path` must end in .jsonl (a file) or .parquet (a folder), got {str(path)!r}"
            raise ValueError(msg)
        self.path, self.parquet = path, path.suffix == ".parquet"
        if path.exists() and path.is_dir() != self.parquet:
            msg = f"`path` must be a {'folder' if self.parquet else 'file'}, which {path} is not: choose another name"
            raise ValueError(msg)
        self.folder = path if self.parquet else path.parent
        self.open = path / "_open.jsonl" if self.parquet else path
        self._stem = "" if self.parquet else f"{path.stem}."

    def finished(self) -> dict[int, Path]:
        """Return number -> finished part, in order."""
        name = re.compile(rf"{re.escape(self._stem)}(\d{{6,}}){re.escape(self.path.suffix)}")
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        parts = {int(match[1]): file for file in files if (match := name.fullmatch(file.name))}
        return dict(sorted(parts.items()))

    def prepare(self) -> None:
        """Create the folder and repair the open file."""
        if self.parquet:
            _pyarrow()  # fail now, not when the first part is full
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repair()

    def repair(self) -> None:
        """Remove an incomplete last line from the open file."""
        if self.open_size():
            os.truncate(self.open, _whole(self.open.read_bytes()))

    def open_size(self) -> int:
        """Return the size of the open file in bytes; 0 without one."""
        return self.open.stat().st_size if self.open.is_file() else 0

    def finish_part(self, limit: int) -> None:
        """Turn the open file into a numbered part, and drop the oldest ones until all are within the limit."""
        parts = self.finished()
        number = max(parts, default=0) + 1
        part = self.folder / f"{self._stem}{number:06d}{self.path.suffix}"
        sync(self.open)
        if self.parquet:
            _write_parquet(part, list(_lines(self.open)))
            self.open.unlink()  # a run killed before this leaves the rows twice; `read` yields them once
        else:
            self.open.replace(part)
        sizes = {file: file.stat().st_size for file in (*parts.values(), part)}
        for file in list(sizes):
            if sum(sizes.values()) > limit and file != part:
                file.unlink()
                del sizes[file]

    def steps(self) -> dict[int, set[int]]:
        """Return number -> steps of each finished part, in order; those of the open file come last, as the next part.

        A part that cannot be read has none.
        """
        parts = {number: _steps(file) for number, file in self.finished().items()}
        return {**parts, max(parts, default=0) + 1: _steps(self.open) if self.open.is_file() else set()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows as written, the oldest first."""
        files = [*self.finished().values(), *([self.open] if self.open.is_file() else [])]
        if not files:
            msg = f"no audit at {self.path}"
            raise FileNotFoundError(msg)
        for file in files:
            yield from _lines(file) if file.suffix == ".jsonl" else _read_parquet(file)


def sync(file: Path) -> None:
    """Sync `file` to disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _steps(file: Path) -> set[int]:
    """Return the steps of a file's rows; parsing whole rows would take seconds."""
    if file.suffix == ".jsonl":
        return {int(step) for step in re.findall(rb'^\{"step": (\d+), ', file.read_bytes(), re.MULTILINE)}
    pa, pq = _pyarrow()
    try:
        return set(pq.read_table(file, columns=["step"])["step"].to_pylist())
    except pa.ArrowException:
        return set()


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    data = file.read_bytes()
    for number, line in enumerate(data[: _whole(data)].splitlines(), start=1):
        row = _parsed(line)
        if row is None:
            msg = f"{file} is damaged at line {number}: delete that line to read the others"
            raise ValueError(msg)
        yield row


def _whole(data: bytes) -> int:
    """Return the length of `data` without incomplete lines at its end."""
    end = data.rfind(b"\n") + 1
    while end:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if _parsed(data[start:end]) is not None:
            break
        end = start
    return end


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.keys() >= {"step", "position"} else None


def _write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    pa, pq = _pyarrow()
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column(pa, [row.get(name) for row in rows]) for name in names}
    with write_atomically(file) as stream:
        pq.write_table(pa.table(columns), stream)


def _column(pa: Any, values: list[Any]) -> Any:
    try:
        column = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # numbers and strings mixed, or beyond 64 bits
        return pa.array([None if value is None else str(value) for value in values])
    # a column of nulls alone would not fit those of other parts
    return column.cast(pa.float64()) if pa.types.is_null(column.type) else column


def _read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    _, pq = _pyarrow()
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches():
            yield from batch.to_pylist()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        msg = "a Parquet audit needs pyarrow: pip install pyarrow, or give a path that ends in .jsonl"
        raise ImportError(msg) from error
    return pa, pq
