"""Widths that a collator pads to, and that must survive when samples are left out."""

from __future__ import annotations

import math

__all__ = ["aligned", "alignment", "row_alignment"]

_CAP = 16  # of a width without excess: tensor cores and 8-bit formats ask for 16, and more would train more padding
_ROW_CAP = 128  # of a row of documents with excess


def alignment(width: int, excess: int, /, *, cap: int = _CAP) -> int:
    """Return the number whose multiples keep the alignment of a batch `width` columns wide.

    Nobody can see `pad_to_multiple_of` in a batch, so that of the possible ones the strictest is kept.

    Parameters
    ----------
    width
        Columns of the batch.
    excess
        Columns that are padding in all samples: more than padding to the longest sample makes.
    cap
        Limit where there is no excess.

    Returns
    -------
    int
        Without excess, the largest power of two that divides the width, `cap` at most. With excess, the same without a
        limit; the whole width where that does not explain the excess, as with a fixed length, or multiples of 24.
        1 for odd widths, which no alignment makes.
    """
    power = width & -width
    if power == 1:
        return 1
    if excess:
        return power if excess < power else width
    return math.gcd(power, cap)


def row_alignment(width: int, excess: int, /) -> int:
    """Return the number whose multiples keep the alignment of a single row of documents; see `alignment`.

    A row is as wide as its documents are together, so that a fixed width cannot stay without all of them.
    """
    if not excess:
        return _CAP if width % _CAP == 0 else 1
    return math.gcd(width, _ROW_CAP)


def aligned(first: int, last: int, width: int, step: int, /) -> tuple[int, int]:
    """Return columns from `first` to `last` with as many beside them as make a multiple of `step`.

    They are taken from the right as far as there are any within `width`, and then from the left.
    """
    more = -(last - first) % step
    right = min(more, width - last)
    return first - (more - right), last + right
