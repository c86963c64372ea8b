"""Scored windows of a data set, a Parquet file each, so that an interrupted run can be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import uds_core as uds

from .. import storage
from ..data.summary import Summary
from ..errors import LabError
from .wide_features import WideFeatures

__all__ = ["ScoredPool", "ScoredRecords", "ScoredWindow", "WindowStore"]

_ABOUT = "about.json"
_SUMMARY = b"summary"  # in the metadata of a window's file
_OF_RUN = b"run"
_FEATURE = "feature:"  # before the name of a column


class ScoredRecords(NamedTuple):
    """The records of one window, or of all."""

    record: np.ndarray  # (n,) int64, counted from 0
    line: np.ndarray  # (n,) int64, counted from 1
    tokens: np.ndarray  # (n,) int32; of the records that cannot be scored 0
    trained: np.ndarray  # (n,) int32: tokens with loss; 0 where there is nothing to score
    left_out: np.ndarray  # (n,) str: why a record cannot be scored, of `REASONS`; empty where it can


class ScoredWindow(NamedTuple):
    """One window, scored."""

    rows: ScoredRecords
    features: uds.Features
    summary: Summary


class ScoredPool(NamedTuple):
    """All records, and the features of those that can be scored, in the file's order."""

    rows: ScoredRecords
    features: uds.Features
    summary: Summary

    @property
    def scored(self) -> np.ndarray:
        """(n,) which records have features."""
        return self.rows.trained > 0


class WindowStore:
    """A folder of finished windows. Several processes may write to it, each its own windows.

    Parameters
    ----------
    folder
        Created by `claim`.
    about
        What the features depend on, as JSON says it; a folder that holds other windows is refused.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about

    def claim(self, *, write: bool) -> None:
        """Make sure that the folder is for this run; with `write`, say so in it. For one process to write.

        Raises
        ------
        LabError
            Where it holds windows that were scored otherwise.
        """
        file = self.folder / _ABOUT
        text = json.dumps(self.about, indent=1, sort_keys=True)
        if file.is_file() and any(self.folder.glob("*.parquet")):
            found, now = json.loads(file.read_text(encoding="utf-8")), json.loads(text)
            differing = sorted(name for name in {*found, *now} if found.get(name) != now.get(name))
            if differing:
                msg = (
                    f"{self.folder} holds windows of an interrupted run with another {', '.join(differing)}: go on "
                    "with the options of that run, or begin anew with `--overwrite`"
                )
                raise LabError(msg)
        elif write:
            storage.folder(self.folder)
            storage.write(file, text)

    def has(self, window: int, /) -> bool:
        """Whether the window is finished."""
        return self._file(window).is_file()

    def save(self, window: int, scored: ScoredWindow, /) -> None:
        """Keep a window: all its rows, and the features of those that can be scored, in their order.

        Raises
        ------
        LabError
            Where a feature has more than one number or one vector a sample, or the disk is full.
        """
        known = scored.rows.trained > 0
        places = pa.array(np.cumsum(known) - 1, mask=~known)
        columns = {name: pa.array(column) for name, column in scored.rows._asdict().items()}
        for name, feature in scored.features.items():
            columns[_FEATURE + name] = _column(name, feature).take(places)
        with storage.atomic(self._file(window)) as stream:
            about = {_SUMMARY: json.dumps(scored.summary.as_json()), _OF_RUN: self._run}
            pq.write_table(pa.table(columns).replace_schema_metadata(about), stream)

    def pool(self, windows: int, /) -> ScoredPool:
        """Return all windows together.

        Features of one number a record are in memory; those of a vector (UDS: 4 KiB) are mapped from files in the
        folder, which `remove` deletes with the windows.

        Raises
        ------
        LabError
            If a window cannot be read, or was scored by another run.
        """
        rows: list[ScoredRecords] = []
        single: dict[str, list[np.ndarray]] = {}
        wide = WideFeatures(self.folder)
        summaries: list[Summary] = []
        for window in range(windows):
            read = self._read(window)
            summaries.append(Summary.of_json(json.loads(read.schema.metadata[_SUMMARY])))
            rows.append(ScoredRecords(*(read[name].to_numpy() for name in ScoredRecords._fields)))
            for column in read.column_names:
                if not column.startswith(_FEATURE) or read.num_rows == read[column].null_count:
                    continue
                name, values = column.removeprefix(_FEATURE), _values(read[column].drop_null())
                if values.ndim > 1:
                    wide.append(name, values)
                else:
                    single.setdefault(name, []).append(values)
        joined = ScoredRecords(*(np.concatenate(column) for column in zip(*rows, strict=True)))
        features = {name: torch.from_numpy(np.concatenate(values)) for name, values in single.items()}
        return ScoredPool(joined, {**features, **wide.mapped()}, summary=Summary.joined(summaries))

    def remove(self) -> None:
        """Delete all windows, once they are not needed any more."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def remove_if_empty(self) -> None:
        """The folder, where no window is finished: nothing to go on from."""
        if self.folder.is_dir() and not any(self.folder.glob("*.parquet")):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _run(self) -> str:
        """Return the fingerprint of what the features depend on."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()[:16]

    def _read(self, window: int) -> pa.Table:
        file = self._file(window)
        try:
            read = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            msg = f"{file} cannot be read ({error}): delete it, and its records are scored again"
            raise LabError(msg) from None
        if (read.schema.metadata or {}).get(_OF_RUN, b"").decode() != self._run:
            msg = f"{file} was scored by another run: delete it, and its records are scored again"
            raise LabError(msg)
        return read

    def _file(self, window: int) -> Path:
        return self.folder / f"{window:08}.parquet"


def _column(name: str, feature: torch.Tensor) -> pa.Array:
    if feature.ndim > 2:
        msg = f"the policy's feature {name!r} has shape {tuple(feature.shape)}; one number or vector a sample is kept"
        raise LabError(msg)
    values = (feature.float() if feature.is_floating_point() else feature).cpu().numpy()
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _values(column: Any) -> np.ndarray:
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return array.to_numpy(zero_copy_only=False)
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), column.type.list_size)
