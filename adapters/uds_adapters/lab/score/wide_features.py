"""Features with a vector for each record, in files that are mapped into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import storage
from ..errors import LabError

__all__ = ["WideFeatures", "keep_rows"]

_ROWS = 4096  # that are moved at a time


class WideFeatures:
    """Vectors of all records, appended window by window, and then read as tensors whose memory is their file.

    Parameters
    ----------
    folder
        Of the files, one for each feature. Files of an earlier, interrupted command are replaced.
    """

    def __init__(self, folder: Path, /) -> None:
        self._folder = folder
        self._files: dict[str, tuple[Path, np.dtype, int]] = {}
        self._rows: dict[str, int] = {}

    def append(self, name: str, values: np.ndarray, /) -> None:
        """Append `values` (n, width) to the feature `name`.

        Raises
        ------
        LabError
            If they have another width than those before, or the disk is full.
        """
        new = (self._folder / f"feature{len(self._files)}.bin", values.dtype, values.shape[1])
        file, _, width = self._files.setdefault(name, new)
        if values.shape[1] != width:
            sizes = sorted({width, values.shape[1]})
            msg = f"the policy's features have sizes {sizes} in different parts of the data, and cannot be compared"
            raise LabError(msg)
        try:
            with file.open("ab" if name in self._rows else "wb") as stream:
                stream.write(np.ascontiguousarray(values).data)
        except OSError as error:
            raise storage.user_error(error, file) from None
        self._rows[name] = self._rows.get(name, 0) + len(values)

    def mapped(self) -> dict[str, torch.Tensor]:
        """Return each feature (records, width); the system keeps what it has room for in memory."""
        return {name: self._mapped(name) for name in self._files}

    def _mapped(self, name: str) -> torch.Tensor:
        (file, dtype, width), rows = self._files[name], self._rows[name]
        kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
        if not rows * width:
            return torch.empty((rows, width), dtype=kind)
        return torch.from_file(str(file), shared=True, size=rows * width, dtype=kind).reshape(rows, width)


def keep_rows(wide: torch.Tensor, places: torch.Tensor, /) -> torch.Tensor:
    """Move the rows of `wide` (n, width) at the increasing `places` (k,) to its beginning, and return these (k, width).

    In place and block by block: neither memory nor disk holds them twice.
    """
    moved = places != torch.arange(len(places), device=places.device)
    first = len(places) - int(moved.sum())  # all after the first that moves do, too
    for start in range(first, len(places), _ROWS):
        block = places[start : start + _ROWS]
        wide[start : start + len(block)] = wide[block]
    return wide[: len(places)]
