"""Arrays of JSON, element by element, without the whole file in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import LabError

__all__ = ["elements"]

_BLOCK = 1 << 20  # bytes that are read at a time
_SPACE = re.compile(r"[ \t\r\n]*")
_UNFINISHED = 16  # characters: an error so near the end of what was read may be one of what is still to be read


def elements(stream: BinaryIO, /, *, file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of an array, each as JSON in one line, with the line where it begins.

    Memory holds one element and a block of the file.

    Raises
    ------
    LabError
        If the file holds no array; `file` names it.
    """
    text = _Text(stream, file)
    text.expect("[")
    expected = "element or end"
    while True:
        sign = text.sign()
        if sign == "]" and expected != "element":
            break
        if expected == "comma or end":
            if sign != ",":
                msg = f"{file}:{text.line}: expected a comma or the end of the array"
                raise LabError(msg)
            text.advance(1)
            expected = "element"
            continue
        yield text.line, text.value()
        expected = "comma or end"
    text.advance(1)
    if text.sign():
        msg = f"{file}:{text.line}: text after the end of the array: expected one array of JSON objects"
        raise LabError(msg)


@dataclass
class _Text:
    """The text of a file from some place on, as far as it was read."""

    stream: BinaryIO
    file: Path
    line: int = 1
    _read: str = ""
    _place: int = 0  # in what was read; what is before it is done
    _before: int = 0  # characters of the line that are not in `_read` any more
    _whole: bool = False
    _bytes: int = 0
    _decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8-sig"))
    _json: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def expect(self, sign: str) -> None:
        """Go past `sign`, which is next."""
        assert self.sign() == sign
        self.advance(1)

    def sign(self) -> str:
        """Return the next character that is no white space; empty: there is none."""
        while True:
            end = _SPACE.match(self._read, self._place).end()  # type: ignore[union-attr] - it matches nothing, too
            self.advance(end - self._place)
            if self._place < len(self._read) or not self._more():
                return self._read[self._place : self._place + 1]

    def advance(self, characters: int) -> None:
        """Go on by so many characters."""
        end = self._place + characters
        self.line += self._read.count("\n", self._place, end)
        self._place = end

    def value(self) -> bytes:
        """Return the JSON value that is next, in one line, and go past it."""
        while True:
            try:
                end = self._json.raw_decode(self._read, self._place)[1]
            except json.JSONDecodeError as error:
                near = error.pos >= len(self._read) - _UNFINISHED or error.msg.startswith("Unterminated string")
                if near and self._more():
                    continue
                line = self.line + self._read.count("\n", self._place, error.pos)
                start = self._read.rfind("\n", 0, error.pos)
                column = error.pos - start + (self._before if start < 0 else 0)
                msg = f"{self.file}:{line}: this array is not JSON ({error.msg}, column {column})"
                raise LabError(msg) from None
            except (ValueError, RecursionError):  # what Python cannot hold is named by the parser of records
                while self._more():
                    pass
                end = len(self._read)
            if end < len(self._read) or not self._more():
                break
        # strings of JSON hold no ends of lines, so those are white space
        found = b" ".join(self._read[self._place : end].encode().splitlines())
        self.advance(end - self._place)
        return found

    def _more(self) -> bool:
        """Read on, at least as much as is there already; False: the file is at its end."""
        if self._whole:
            return False
        start = self._read.rfind("\n", 0, self._place)
        self._before = self._place - start - 1 if start >= 0 else self._before + self._place
        self._read, self._place = self._read[self._place :], 0
        block = self.stream.read(max(_BLOCK, len(self._read)))
        self._whole = not block
        try:
            self._read += self._decoder.decode(block, final=self._whole)
        except UnicodeDecodeError as error:
            msg = f"{self.file} is not UTF-8 text (byte {self._bytes + error.start}): expected an array of JSON objects"
            raise LabError(msg) from None
        self._bytes += len(block)
        return True
