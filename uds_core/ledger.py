"""One number for each sample, by the sample's id in the data set."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Numbers: TypeAlias = np.ndarray[Any, Any]


class Ledger(NamedTuple):
    """Numbers of samples by their ids. A value: `enter` returns the next one.

    It is on the host, in NumPy, for any array library: ids need 64 bits, and any step may bring new ones.

    Examples
    --------
    >>> ledger = Ledger.of({17: 1.5, 4: 0.25})
    >>> ledger.look_up(np.array([4, 5, 17])).tolist()
    [0.25, nan, 1.5]
    >>> ledger.enter(np.array([5, 4]), np.array([2.0, 3.0])).look_up(np.array([4, 5])).tolist()
    [3.0, 2.0]
    """

    ids: Numbers  # (n,) int64, ascending, each once
    values: Numbers  # (n,) float32

    @classmethod
    def empty(cls) -> "Ledger":
        """Return a ledger without entries."""
        return cls(np.empty(0, np.int64), np.empty(0, np.float32))

    @classmethod
    def of(cls, numbers: Mapping[int, float], /) -> "Ledger":
        """Return a ledger of ``{id: number}``.

        Raises
        ------
        TypeError
            Where an id is not a whole number.
        """
        ids = np.asarray(list(numbers), dtype=np.int64 if not numbers else None)
        if ids.dtype.kind not in "iu":
            msg = f"`numbers` must map whole numbers, the samples' ids, got {next(iter(numbers))!r} among them"
            raise TypeError(msg)
        return cls.empty().enter(ids.astype(np.int64), np.asarray(list(numbers.values()), dtype=np.float32))

    def look_up(self, ids: Numbers, /) -> Numbers:
        """Return the numbers of `ids` (batch,): (batch,) float32, NaN where there is no entry. O(batch log n)."""
        place: Numbers = np.searchsorted(self.ids, ids)
        ids_there, values_there = (np.append(a, a.dtype.type(0))[place] for a in (self.ids, self.values))
        known: Numbers = (ids_there == ids) & (place < len(self.ids))
        return np.where(known, values_there, np.float32(np.nan))

    def enter(self, ids: Numbers, values: Numbers, /) -> "Ledger":
        """Return the ledger after `values` (batch,) were entered under `ids`, replacing earlier ones. O(n + batch).

        NaN is not entered. Of an id that comes twice, the first value counts.
        """
        sound = ~np.isnan(values)
        ids, first = np.unique(np.asarray(ids, dtype=np.int64)[sound], return_index=True)
        values = np.asarray(values, dtype=np.float32)[sound][first]
        stays = ~np.isin(self.ids, ids, assume_unique=True)
        ids, values = np.concatenate([self.ids[stays], ids]), np.concatenate([self.values[stays], values])
        order = np.argsort(ids, kind="stable")
        return Ledger(ids[order], values[order])

    def check(self, _template: "Ledger", /) -> None:
        """Raise where a restored ledger cannot be one."""
        if self.ids.ndim != 1 or self.ids.shape != self.values.shape or (self.ids[1:] <= self.ids[:-1]).any():
            msg = (
                f"the saved ledger has {self.values.size} numbers for {self.ids.size} ids, or these are not "
                "ascending: the file is damaged"
            )
            raise ValueError(msg)
