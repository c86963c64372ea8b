"""Records of a data set in windows, whatever its files are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import LabError
from . import jsonl
from .files import listed
from .jsonl import Line, Window
from .tables import is_plain, rows

__all__ = ["Reader"]


@dataclass
class Reader:
    """The records of a data set.

    JSON Lines are read from any place. Other files are read from the beginning, and windows in their order without
    reading anything twice. Memory holds one record, but for an array of JSON, which is held as text.

    Parameters
    ----------
    path
        As for `listed`.
    """

    path: Path
    _next: Iterator[Line] | None = field(default=None, repr=False)
    _place: int = 0

    def __post_init__(self) -> None:
        files = listed(self.path)
        self._plain = files == [self.path] and is_plain(self.path)
        self._files = files

    def lines(self) -> Iterator[Line]:
        """Yield all records.

        Raises
        ------
        LabError
            If there is none, or a file is not what its name says.
        """
        line = None
        for line in jsonl.lines(self.path) if self._plain else self._rows():
            yield line
        if line is None:
            raise LabError(jsonl.nothing(self.path))

    def count(self) -> int:
        """Return the number of records, without parsing them where the file allows that.

        Raises
        ------
        LabError
            If there is none.
        """
        return self.windows(size=2**40)[-1].records

    def windows(self, *, size: int, limit: int | None = None) -> list[Window]:
        """Return the windows of `size` records; see `jsonl.windows`."""
        if self._plain:
            return jsonl.windows(self.path, size=size, limit=limit)
        number = jsonl.limited(sum(1 for _ in self._rows()), limit, self.path)
        return [Window(0, first, 0, min(size, number - first)) for first in range(0, number, size)]

    def read(self, window: Window, /) -> Iterator[Line]:
        """Yield the records of a window."""
        if self._plain:
            yield from jsonl.read(self.path, window)
            return
        if self._next is None or self._place > window.record:
            self._next, self._place = self._rows(), 0
        for line in self._next:
            self._place = line.record + 1
            if line.record >= window.record:
                yield line
            if self._place == window.record + window.records:
                return

    def _rows(self) -> Iterator[Line]:
        record = 0
        for file in self._files:
            for number, content in rows(file):
                yield Line(record, number, content, b"\n", None if file == self.path else file)
                record += 1
