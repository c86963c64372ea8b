"""First records of a data set, and their preview, without reading the rest."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.encoding import Encoder
from ..data.reader import Reader
from ..data.record import Record
from ..data.records import parse
from ..data.source import Source
from ..models import quiet
from .preview import preview
from .values import Preview

__all__ = ["beginning", "preview_of"]


def beginning(source: Source, /, *, records: int, size: int | None = None) -> tuple[list[Record], bool]:
    """Return the first records of a data set, and whether it holds others.

    Parameters
    ----------
    source
        Names the data.
    records
        That are read, at most.
    size
        Bytes after which no other is read; None: no matter how many.

    Raises
    ------
    LabError
        If there is none, or a line is no record.
    """
    every: list[Record] = []
    read = 0
    for line in Reader(source.data).lines():
        if len(every) == records or (size is not None and read > size):
            return every, True
        every.append(parse(line, path=source.data, fields=source.fields))
        read += len(line.content)
    return every, False


def preview_of(
    records: Sequence[Record],
    /,
    *,
    encoder: Encoder,
    number: int = 4,
    asked: Sequence[Record] = (),
    more: bool = False,
) -> Preview:
    """Return the preview of records, with one record for each reason why some are left out; see `preview`."""
    with quiet():
        found = encoder.encode(records)
        left_out: dict[str | None, Record] = {None: records[0]}
        for record, reason in zip(records, found.left_out, strict=True):
            left_out.setdefault(reason, record)
        return preview(
            found.records,
            found.examples,
            found.summary,
            encoder=encoder,
            number=number,
            asked=asked or None,
            left_out=list(left_out.values())[1:] if number else (),
            more=more,
        )
