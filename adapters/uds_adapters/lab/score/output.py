"""Output of scoring: a Parquet file with a line for each record, and the best records as JSONL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import storage
from ..data.jsonl import Window
from ..data.reader import Reader
from .choose import RankedRecords
from .window_store import ScoredPool

__all__ = ["save", "save_subset", "table"]

_ROW_GROUP = 65536
_INTERNAL = ("id", "length")  # features that the other columns tell better


def table(pool: ScoredPool, choice: RankedRecords, /, *, about: Mapping[str, Any]) -> pa.Table:
    """One row a record, in the file's order.

    `record` (from 0) and `line` (from 1); `tokens`, and `trained_tokens` among them, those with loss; `left_out`, why
    a record cannot be scored; `score` and the numbers that it is made of, empty where a record cannot be scored or the
    number is not finite; `chosen`, and in which `round`. The file's metadata tell under `uds` how it was made.

    Parameters
    ----------
    pool
        The records, and the features of those that can be scored.
    choice
        Among the latter.
    about
        For the metadata, anything JSON can say.
    """
    scored = pool.scored
    vectors = [name for name, feature in pool.features.items() if feature.ndim > 1]
    single = {n: f.numpy() for n, f in pool.features.items() if n not in (*vectors, *_INTERNAL, *choice.columns)}
    rounds = np.zeros(len(scored), dtype=np.int16)
    rounds[scored] = choice.rounds
    columns: dict[str, Any] = {
        "record": pa.array(pool.rows.record),
        "line": pa.array(pool.rows.line),
        "tokens": pa.array(pool.rows.tokens, mask=~scored),
        "trained_tokens": pa.array(pool.rows.trained),
        "left_out": pa.array(pool.rows.left_out, mask=scored, type=pa.string()),
        **{name: _spread(column, scored) for name, column in {**choice.columns, **single}.items()},
        "chosen": pa.array(rounds > 0),
        "round": pa.array(rounds, mask=rounds == 0),
    }
    return pa.table(columns).replace_schema_metadata({"uds": json.dumps(about)})


def save(path: Path, rows: pa.Table, /) -> None:
    """Write the table, whole or not at all."""
    with storage.atomic(path) as stream:
        pq.write_table(rows, stream, row_group_size=_ROW_GROUP)


def save_subset(path: Path, data: Path, every: Sequence[Window], chosen: np.ndarray, /) -> int:
    """Copy the lines of the chosen records, byte for byte and in the file's order; return their number.

    Rows of tables become JSON.

    Parameters
    ----------
    path
        Written whole or not at all.
    data
        Where they are copied from, once more line by line.
    every
        Its windows.
    chosen
        (n,) whether each record is.
    """
    number, reader = 0, Reader(data)
    with storage.atomic(path) as stream:
        for window in every:
            if not chosen[window.record : window.record + window.records].any():
                continue
            for line in reader.read(window):
                if chosen[line.record]:
                    stream.write(line.content + (line.end or b"\n"))
                    number += 1
    return number


def _spread(values: np.ndarray, scored: np.ndarray) -> pa.Array:
    """A column of all records from one of those that were scored; empty where it is not finite."""
    column = np.full(len(scored), np.nan, dtype=np.float32)
    column[scored] = values
    return pa.array(column, mask=~np.isfinite(column))
