"""Records on the page: their text, properties, and the policies that chose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .choices import counts

__all__ = ["LIMIT", "listed"]

LIMIT = 2_000  # records; bounds the size of the page
_CHARACTERS = 400


def listed(results: Mapping[str, Any], policies: Sequence[str], /) -> dict[str, Any]:
    """Return at most `LIMIT` records, those on the map first, and the map's points with their row in the list."""
    records = results.get("records") or []
    chart = results.get("map") or {"x": [], "y": [], "record": []}
    shown = _shown(len(records), chart["record"])
    chosen = [counts(results["runs"], policy) for policy in policies]
    rows = [{**_row(records, index), "chosen": [count[index] for count in chosen]} for index in shown]
    place = {index: row for row, index in enumerate(shown)}
    points = [
        {"x": x, "y": y, "row": place[index]}
        for x, y, index in zip(chart["x"], chart["y"], chart["record"], strict=True)
        if index in place
    ]
    return {"records": {"total": len(records), "rows": rows}, "map": points}


def _shown(total: int, first: Sequence[int]) -> list[int]:
    """Return indices in the order of the data, evenly spaced if there are more than `LIMIT`."""
    kept = [index for index in first if index < total][:LIMIT]
    room = min(total, LIMIT) - len(kept)
    others = sorted(set(range(total)) - set(kept))
    return sorted([*kept, *(others[n * len(others) // room] for n in range(room))])


def _row(records: Sequence[Mapping[str, Any]], index: int) -> dict[str, Any]:
    record = records[index]
    original = record.get("duplicate_of")
    return {
        "line": record["line"],
        "text": record["text"][:_CHARACTERS],
        "length": record["length"],
        "trained": record["trained"],
        "flags": [name for name, value in (record.get("flags") or {}).items() if value],
        "duplicate_of": None if original is None else records[original]["line"],
    }
