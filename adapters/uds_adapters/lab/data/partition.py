"""Which records of a data set are trained on, held out or set aside."""

from __future__ import annotations

import random
from pathlib import Path

from ..errors import LabError

__all__ = ["ASIDE", "HELDOUT", "TRAIN", "UNUSED", "partition"]

UNUSED, TRAIN, HELDOUT, ASIDE = range(4)


def partition(
    records: int,
    /,
    *,
    path: Path,
    holdout: float,
    aside: float,
    limit: int | None,
    eval_limit: int | None,
    seed: int,
) -> bytearray:
    """Return the part of each record: `TRAIN`, `HELDOUT`, `ASIDE` or `UNUSED`, a byte each.

    Parameters
    ----------
    records
        Number of records.
    path
        For errors.
    holdout
        Fraction that is held out; 0: none.
    aside
        Fraction of the training records that is set aside.
    limit
        Number of training records, those set aside included; None: all.
    eval_limit
        Number of held-out records; None: of `holdout` in proportion to `limit`.
    seed
        Of both draws.

    Raises
    ------
    LabError
        If a fraction is invalid, or a single record is to be split.
    """
    parts = bytearray([TRAIN]) * records
    if holdout:
        if eval_limit is None and limit is not None:  # as large a fraction as of all records
            eval_limit = max(1, round(limit * holdout / (1.0 - holdout))) if 0.0 < holdout < 1.0 else None
        for number, place in enumerate(sorted(_drawn(records, holdout, seed, path))):
            parts[place] = HELDOUT if eval_limit is None or number < eval_limit else UNUSED
    train = [place for place, part in enumerate(parts) if part == TRAIN]
    for place in train[limit:] if limit is not None else ():
        parts[place] = UNUSED
    if aside:
        train = train[:limit]
        for place in _drawn(len(train), aside, seed, path):
            parts[train[place]] = ASIDE
    return parts


def _drawn(number: int, fraction: float, seed: int, path: Path) -> list[int]:
    if not 0.0 < fraction < 1.0:
        msg = f"`holdout` must be a fraction between 0 and 1, got {fraction}; for a file of its own use `--eval-data`"
        raise LabError(msg)
    if number < 2:
        msg = f"{path}: one record cannot be split; give held-out records with `--eval-data`"
        raise LabError(msg)
    size = min(number - 1, max(1, round(fraction * number)))
    return random.Random(seed).sample(range(number), size)
