"""Words and numbers of a preview, whatever they are shown on."""

from __future__ import annotations

from typing import NamedTuple

from .values import Preview, Sample

__all__ = ["Row", "about", "rows"]


class Row(NamedTuple):
    """A line of the summary."""

    name: str
    value: str
    more: str = ""


def rows(preview: Preview, /) -> list[Row]:
    """Return the summary: records, what is left out and why, tokens, and near-duplicates."""
    made = [Row("records", f"{preview.records:,}", "the first of the data; --limit reads more" if preview.more else "")]
    for one in preview.formats:
        number = f"{one.records:,}" if len(preview.formats) > 1 else ""
        made.append(Row("read as", number, f"{one.format}, from {', '.join(one.used)}"))
    for one in preview.left_out:
        others = one.records - len(one.places)
        more = f" and {others:,} more" if others > 0 and one.places else ""
        made.append(Row("left out", f"{one.records:,}", f"{one.reason}: {', '.join(one.places)}{more}".rstrip(": ")))
    if not preview.records:
        return made
    equal = f", {preview.equal:,} of them in the same words" if preview.equal else ""
    return [
        *made,
        Row("tokens", f"{preview.tokens:,}", f"median {preview.median:,.0f} a record, at most {preview.longest:,}"),
        Row("with loss", f"{preview.trained:,}", f"tokens, {_percent(preview.trained, preview.tokens)}"),
        Row(
            "cut off",
            f"{preview.cut:,}",
            f"records, {_percent(preview.cut, preview.records)}, after {preview.max_length} tokens",
        ),
        Row(
            "near-duplicates",
            f"{preview.near_duplicates:,}",
            f"records, {_percent(preview.near_duplicates, preview.records)}{equal}",
        ),
    ]


def about(sample: Sample, /) -> list[str]:
    """Return what is known of a record, the first its place."""
    if sample.left_out is not None:
        return [sample.place, sample.format, f"left out: {sample.left_out}"]
    made = [sample.place, sample.format, f"{sample.tokens:,} tokens, {sample.trained:,} trained"]
    if sample.cut:
        made.append(f"cut off: {sample.cut:,} more")
    if sample.repeats is not None:
        made.append(f"near-duplicate of {sample.repeats} ({sample.similarity:.0%})")
    return made


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}"
