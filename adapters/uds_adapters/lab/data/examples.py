"""Encoded examples of one part of a data set, in memory or in a file that is mapped into memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from .. import storage
from .encoding import EncodedRecords, Example
from .record import Record
from .summary import Summary

__all__ = ["Examples"]

_SCHEMA = pa.schema(
    [("index", pa.int64()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))],
)


class Examples:
    """Collects examples, window by window.

    Parameters
    ----------
    file
        Where they are written, as `datasets` reads them; None: they stay in memory, with their records.

    Attributes
    ----------
    records
        Records of the examples; none where they are written to a file.
    digests
        A hash of each example's tokens, 8 bytes each.
    """

    def __init__(self, file: Path | None) -> None:
        self.records: list[Record] = []
        self.digests = array("q")
        self._examples: list[Example] = []
        self._summaries: list[Summary] = []
        self._file, self._writer = file, None

    def add(self, encoded: EncodedRecords, /) -> None:
        """Add the examples of the next window."""
        first = len(self.digests)
        examples = [Example(**{**example, "index": first + example["index"]}) for example in encoded.examples]
        self.digests.extend(hash(tuple(example["input_ids"])) for example in examples)
        self._summaries = [Summary.joined([*self._summaries, encoded.summary])]
        if self._file is None:
            self._examples += examples
            self.records += encoded.records
        elif examples:
            try:
                self._writer = self._writer or pa.ipc.new_stream(str(self._file), _SCHEMA)
                self._writer.write_batch(pa.RecordBatch.from_pylist([dict(one) for one in examples], schema=_SCHEMA))
            except OSError as error:
                raise storage.user_error(error, self._file) from None

    def summary(self) -> Summary | None:
        """Return the summary of all windows; None: there was none."""
        return self._summaries[0] if self._summaries else None

    def done(self) -> Sequence[Example]:
        """Return all examples; those in a file take no memory that the system cannot take back."""
        if self._writer is None:
            return self._examples
        self._writer.close()
        read: Any = datasets.Dataset.from_file(str(self._file))
        return read
