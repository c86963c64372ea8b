"""Audit log of scores and selections, one row per candidate."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .audit_files import AuditFiles, sync

__all__ = ["Audit", "read"]

_PARTS = 8  # a full audit drops an eighth of its limit at a time
_SYNC_EVERY = 64  # records
_OURS = ("step", "position", "id", "chosen")


class Audit:
    """Log of selections: a row for each candidate, with its score, the parts of the score, and whether it was chosen.

    Parameters
    ----------
    path
        ``"....jsonl"``: a file with one JSON object per line; full parts are renamed to ``....000001.jsonl`` and so
        on, in the same folder. ``"....parquet"``: a folder of Parquet files, which needs pyarrow. An existing one is
        continued. A path has one writer: give each process its own.
    limit_bytes
        Limit of all files together. A part takes an eighth of it; the oldest parts are dropped for new ones.
    every
        Only steps that are multiples of it are recorded.

    Raises
    ------
    ValueError
        When `path` ends in neither, is a file instead of a folder, or an option is out of range.
    ImportError
        When the path ends in ``.parquet`` and pyarrow is missing.

    Notes
    -----
    A record is with the operating system when `record` returns, so it survives the process. It is synced to disk every
    64th time, with each full part, and by `close`, so a power failure costs 63 records at most. No file stays open.
    Parquet files are written atomically; until one is full its rows are in ``_open.jsonl`` in the same folder. 32
    candidates take half a millisecond; a full part (32 MiB by default, 180,000 rows) takes 3 s to become Parquet.

    Examples
    --------
    >>> audit = Audit("run/audit.jsonl")  # doctest: +SKIP
    >>> selection, state = policy.choose(state, features)  # doctest: +SKIP
    >>> audit.record(step, ids, selection.table(), selection.indices.tolist())  # doctest: +SKIP
    """

    def __init__(self, path: Path | str, *, limit_bytes: int = 1 << 28, every: int = 1) -> None:
        for name, value in (("limit_bytes", limit_bytes), ("every", every)):
            _check_whole(name, value, least=1)
        self.every, self.limit_bytes = every, limit_bytes
        self._part_bytes, self._records = limit_bytes // _PARTS, 0
        self._finished_bytes = limit_bytes - self._part_bytes  # a part's room for the open file
        self._files = AuditFiles(Path(path))
        self._files.prepare()

    def record(
        self, step: int, ids: Sequence[Any] | None, parts: Mapping[str, Any], chosen: Collection[int], **numbers: Any
    ) -> None:
        """Write the rows of one selection.

        Parameters
        ----------
        step
            Number of the step, from 0. One that is not above the last, as after a resume, replaces the records of that
            step and of all later ones.
        ids
            Ids of the candidates in the data set, numbers or strings; None without ids.
        parts
            Name -> one number per candidate, in batch order: `Selection.table()`, lengths and others. Lists, or
            anything with `tolist`. Numbers that are not finite become null.
        chosen
            Positions of the chosen in the batch.
        **numbers
            Of the whole selection, repeated in each row: ``alpha=...``.

        Raises
        ------
        TypeError, ValueError
            When lengths, names or values do not fit one another, or `limit_bytes` is less than 8 times one record.
        """
        _check_whole("step", step, least=0)
        if step % self.every:
            return
        rows = _rows(step, ids, parts, chosen, numbers)
        self._append("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())

    def warn_of_missing(self, first: int, last: int) -> None:
        """Warn when records are missing of which a checkpoint says that they were written, from step `first` to `last`.

        Their files were deleted or emptied since. Oldest parts may be missing, as they are dropped for the limit.
        """
        missing = _missing(self._files.steps(), first, last)
        if missing:
            msg = (
                f"the audit {self._files.path} has no records of steps {missing}, which the run had written before its "
                "checkpoint: they were deleted since; the audit continues without them"
            )
            warnings.warn(msg, stacklevel=4)  # of `BatchSelector.load_state_dict`

    def close(self) -> None:
        """Sync all records to disk, for Parquet the last rows as a part. `record` may be called again afterwards."""
        if self._files.parquet and self._files.open_size():
            self._files.finish_part(self._finished_bytes)
        elif self._files.open_size():
            sync(self._files.open)

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, lines: bytes) -> None:
        if len(lines) > self._part_bytes:
            msg = f"`limit_bytes` must be at least {_PARTS} times one record, here {_PARTS * len(lines)}: raise it"
            raise ValueError(msg)
        if self._files.open_size() + len(lines) > self._part_bytes:
            self._files.finish_part(self._finished_bytes)
        try:
            with self._files.open.open("ab") as stream:
                stream.write(lines)
        except OSError:
            self._files.repair()  # a full disk must not leave half a line between others
            raise
        self._records += 1
        if self._records % _SYNC_EVERY == 0:
            sync(self._files.open)


def read(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an audit by step and position, without those that a resumed run replaced.

    Parameters
    ----------
    path
        The path given to `Audit`. No run may write to it at the same time.

    Yields
    ------
    dict
        ``step``, ``position``, ``id`` (if given), ``chosen``, every part and every number.

    Raises
    ------
    FileNotFoundError
        When there is no audit.
    ValueError
        When a line is damaged. An incomplete last line, as a killed run leaves it, is skipped.
    """
    files = AuditFiles(Path(path))
    steps = [record[0]["step"] for record in _records(files)]
    for latest, record in zip(_latest(steps), _records(files), strict=False):
        if latest:
            yield from record


def _rows(
    step: int, ids: Any, parts: Mapping[str, Any], chosen: Collection[int], numbers: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    taken = [name for name in (*parts, *numbers) if name in _OURS or (name in parts and name in numbers)]
    if taken:
        msg = f"names of `parts` and numbers must differ from one another and from {', '.join(_OURS)}, got {taken}"
        raise ValueError(msg)
    columns = {name: _list(values) for name, values in {"id": ids, **parts}.items() if values is not None}
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) != 1:
        msg = f"`ids` and `parts` must have one value for each candidate, got {sizes or 'none'}"
        raise ValueError(msg)
    size, positions = next(iter(sizes.values())), _list(chosen)
    kept = set(positions)
    if len(kept) != len(positions) or not kept <= set(range(size)):
        msg = f"`chosen` must be distinct positions among the {size} candidates, got {positions}"
        raise ValueError(msg)
    shared = {name: _cell(name, value) for name, value in numbers.items()}
    for position in range(size):
        own = {name: _cell(name, values[position]) for name, values in columns.items()}
        yield {"step": int(step), "position": position, **own, "chosen": position in kept, **shared}


def _list(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _cell(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    msg = f"{name!r} must hold numbers, strings or None, got {value!r}"
    raise TypeError(msg)


def _records(files: AuditFiles) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each call of `record`."""
    record: list[dict[str, Any]] = []
    for row in files.rows():
        if row["position"] == 0 and record:
            yield record
            record = []
        record.append(row)
    if record:
        yield record


def _latest(steps: Sequence[int]) -> list[bool]:
    """Return which records no later one replaces: those with a step below all that follow."""
    lowest, flags = math.inf, []
    for step in reversed(steps):
        flags.append(step < lowest)
        lowest = min(lowest, step)
    return flags[::-1]


def _missing(parts: Mapping[int, Collection[int]], first: int, last: int) -> str:
    """Return the steps from `first` to `last` that are in no part, as text; `parts`: number -> steps, in order."""
    filled = {number: steps for number, steps in parts.items() if steps}
    present = [step for steps in filled.values() for step in steps if step <= last]
    limits = [(max(present, default=first - 1), last + 1)]
    if present and min(parts) == 1:  # no part was dropped
        limits.append((first - 1, min(present)))
    for number, following in pairwise(filled):
        if following > number + 1:
            limits.append((max(filled[number]), min(*filled[following], last + 1)))
    ranges = sorted((start + 1, end - 1) for start, end in limits if end - start > 1)
    return ", ".join(f"{start} to {end}" if end > start else f"{start}" for start, end in ranges)


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        msg = f"`{name}` must be a whole number of at least {least}, got {value!r}"
        raise ValueError(msg)
