"""Values of a preview, which need no framework: records as text in pieces, and statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Columns", "LeftOut", "Piece", "Preview", "Sample"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Consecutive tokens, as text, that all carry loss or all do not."""

    text: str
    trained: bool


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A record, encoded and decoded again."""

    place: str
    """File and line."""
    format: str
    pieces: tuple[Piece, ...]
    """Together all that the model reads, special tokens included."""
    tokens: int
    trained: int
    """Tokens that carry loss."""
    cut: int = 0
    """Tokens that are cut off at the end."""
    repeats: str | None = None
    """File and line of the earlier record that it is a near-duplicate of."""
    similarity: float = 0.0
    """To that record, in [0, 1]."""
    left_out: str | None = None
    """Why it is not trained on, in words."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Records of one format."""

    format: str
    records: int
    used: tuple[str, ...]
    """Fields that are read, in the order of the records."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Records that are left out for one reason."""

    reason: str
    records: int
    places: tuple[str, ...]
    """File and line of the first ones."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Statistics of the records that were read, and some of them."""

    records: int
    """Number of records that are trained on."""
    more: bool
    """Whether the data set holds others, which were not read."""
    max_length: int
    tokens: int
    trained: int
    """Tokens that carry loss."""
    median: float
    """Tokens of a record."""
    longest: int
    cut: int
    """Records whose end is cut off."""
    near_duplicates: int
    """Records that repeat an earlier one, nearly or in the same words."""
    equal: int
    """Those in the same words."""
    formats: tuple[Columns, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the preview in values that JSON has."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Mapping[str, Any], /) -> Preview:
        """Return the preview that `as_json` wrote."""
        samples = [{**one, "pieces": tuple(Piece(**piece) for piece in one["pieces"])} for one in values["samples"]]
        return cls(
            **{
                **values,
                "formats": tuple(Columns(**{**one, "used": tuple(one["used"])}) for one in values["formats"]),
                "left_out": tuple(LeftOut(**{**one, "places": tuple(one["places"])}) for one in values["left_out"]),
                "notes": tuple(values["notes"]),
                "samples": tuple(Sample(**one) for one in samples),
            }
        )
