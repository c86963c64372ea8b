"""Read folders of results, join them, and write their report."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import storage
from ..errors import LabError
from .page import filled
from .view import sentences, view

__all__ = ["SCHEMA", "join", "read", "write"]

SCHEMA = 2

_JOINED = {
    True: "trained on the same records. The menu at the top shows each folder alone.",
    False: "trained on different records: do not compare their losses. The menu at the top shows each folder alone.",
}
_NEEDED = {"runs": {"policy", "seed", "steps", "evaluations"}, "summary": {"policy"}}


def write(folders: Sequence[Path], output: Path, /, *, after: Callable[[int, int], None] | None = None) -> Path:
    """Write the report of one folder, or of several joined and each alone, to `output`, atomically.

    `after` is called after each audit with the number of audits read, and of all audits.

    Raises
    ------
    LabError
        If a folder contains no results, or they cannot be read.
    """
    results = {name: read(folder) for name, folder in _named(folders).items()}
    shown = [*results.items()] if len(results) == 1 else [("all folders together", join(results)), *results.items()]
    total = sum(run["audit"] is not None for _, result in shown for run in result["runs"])
    done = itertools.count(1)

    def count_audit() -> None:
        if after is not None:
            after(next(done), total)

    storage.write(output, filled([view(result, name=name, after=count_audit) for name, result in shown]))
    return output


def read(folder: Path, /) -> dict[str, Any]:
    """Return the content of `results.json` in a folder, the paths of its audits joined to that folder.

    Raises
    ------
    LabError
        If the file is missing, damaged, of a later version, or not of a comparison.
    """
    file = folder / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"no results.json in {folder}: expected a folder that `uds compare` or `uds demo` wrote to its end"
        raise LabError(msg) from None
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{file} cannot be read: {error}. Run the comparison again, or name another folder"
        raise LabError(msg) from None
    _check(results, file)
    runs = [{**run, "audit": run.get("audit") and folder / run["audit"]} for run in results["runs"]]
    return {**results, "runs": runs}


def join(results: Mapping[str, Mapping[str, Any]], /) -> dict[str, Any]:
    """Return one comparison that joins several; its policies are named after their folders.

    Records and choices are included only if all folders have the same data.
    """
    first, *others = results.values()
    same = all(other.get("records") == first.get("records") for other in others)
    return {
        "command": "uds report " + " ".join(results),
        "verdict": [
            f"{len(results)} folders that {_JOINED[same]}",
            *(f"{name}: {first}" for name, result in results.items() for first in sentences(result.get("verdict"))[:1]),
        ],
        "summary": _renamed(results, "summary", ("policy",)),
        "comparisons": _renamed(results, "comparisons", ("policy", "rival")),
        "runs": [run if same else {**run, "selected": []} for run in _renamed(results, "runs", ("policy",))],
        "records": first.get("records") if same else [],
        "map": first.get("map") if same else None,
        "preview": first.get("preview") if same else None,
    }


def _renamed(results: Mapping[str, Mapping[str, Any]], key: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {**row, **{field: f"{name}: {row[field]}" for field in fields}}
        for name, result in results.items()
        for row in result.get(key) or ()
    ]


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Return folders by their last part, or by their path where two have the same last part."""
    names = [folder.resolve().name for folder in folders]
    named = {
        name if names.count(name) == 1 else str(folder): folder for name, folder in zip(names, folders, strict=True)
    }
    if len(named) != len(folders):
        msg = f"a folder is named twice: {', '.join(map(str, folders))}"
        raise LabError(msg)
    return named


def _check(results: Any, file: Path) -> None:
    fits = isinstance(results, dict) and all(isinstance(results.get(key), list) for key in _NEEDED)
    if not fits or not results["runs"]:
        msg = f"{file} holds no results of a comparison: expected an object with `runs` and `summary`"
        raise LabError(msg)
    if results.get("schema", SCHEMA) not in range(SCHEMA + 1):
        msg = f"{file} has schema {results['schema']}, and this version reads up to {SCHEMA}: upgrade uds-core"
        raise LabError(msg)
    for key, needed in _NEEDED.items():
        if not all(isinstance(row, dict) and row.keys() >= needed for row in results[key]):
            names = ", ".join(sorted(needed))
            msg = f"{file} is damaged: each of its `{key}` must have {names}. Run the comparison again"
            raise LabError(msg)
