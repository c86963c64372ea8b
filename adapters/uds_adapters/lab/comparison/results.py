"""`results.json`: runs, statistics, records and verdict of a comparison."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ...batches import IGNORE
from .. import storage
from ..model_paths import hub_name
from ..preview.preview import preview, repeated
from ..report.folders import write as write_report
from ..training.budget import RunBudget
from ..training.run_result import RunResult
from ..training.task import Task
from .plan import Plan
from .run_store import Runs
from .statistics import comparisons, summarise
from .verdict import verdict

__all__ = ["SCHEMA", "Flags", "describe", "save"]

SCHEMA = 2

Flags = Mapping[str, Sequence[bool]]
"""Known properties of the training examples: name -> one truth value an example."""

_CHARACTERS = 400  # of a record's text
_VERSIONED = ("uds-core", "torch", "transformers", "accelerate", "peft", "numpy", "plotly")


def describe(
    task: Task,
    results: Sequence[RunResult],
    /,
    *,
    plan: Plan,
    runs: Runs,
    command: str,
    flags: Flags | None = None,
    chart: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All of it; every key is there, null where nothing is known.

    Parameters
    ----------
    task, results
        What was trained, and what came of it.
    plan, runs, command
        How it was asked for, and where it lies.
    flags
        See `Flags`.
    chart
        Of `place_records`.
    """
    kind, _ = RunBudget.parse(plan.settings.budget)
    summaries, found = summarise(results, flags=flags), comparisons(results, budget=kind)
    return {
        "schema": SCHEMA,
        "command": command,
        "configuration": _configuration(task, results, plan),
        "versions": _versions(),
        "verdict": verdict(summaries, found),
        "summary": [asdict(summary) for summary in summaries],
        "comparisons": [asdict(comparison) for comparison in found],
        "runs": [_run(result, runs) for result in results],
        "records": _records(task, flags or {}),
        "map": chart,
        "preview": preview(task.records, task.train, task.summary, encoder=task.encoder).as_json(),
    }


def save(results: Mapping[str, Any], folder: Path, /, *, after: Callable[[int, int], None] | None = None) -> Path:
    """Write `results.json` and `report.html`; return the path of the report. `after` is passed on to the report."""
    storage.write(folder / "results.json", storage.as_json(results, indent=1))
    return write_report([folder], folder / "report.html", after=after)


def _configuration(task: Task, results: Sequence[RunResult], plan: Plan) -> dict[str, Any]:
    planned = plan.as_json()
    return {
        **planned["source"],
        "model": hub_name(plan.source.model) or planned["source"]["model"],
        **planned["settings"],
        "fingerprints": planned["fingerprints"],
        "steps": plan.settings.total_steps(len(task.train)),
        "policies": list(dict.fromkeys(result.policy for result in results)),
        "seeds": sorted({result.seed for result in results}),
        "training_examples": len(task.train),
        "heldout_examples": len(task.heldout),
        "set_aside": len(task.aside),
        "left_out": task.left_out,
    }


def _run(result: RunResult, runs: Runs) -> dict[str, Any]:
    """Without the losses of single held-out samples, which lie in the run's own file."""
    values = asdict(result)
    del values["measured"]
    return {**values, "audit": runs.audit(result.policy, result.seed)}


def _records(task: Task, flags: Flags) -> list[dict[str, Any]]:
    texts = [task.encoder.text(record) for record in task.records]
    repeats = repeated(task.records)
    originals = {place: repeat.original for place, repeat in repeats.items()}
    return [
        {
            "line": record.line,
            "text": text[:_CHARACTERS],
            "length": len(example["input_ids"]),
            "trained": sum(label != IGNORE for label in example["labels"][1:]),
            "flags": {name: bool(values[place]) for name, values in flags.items()},
            "duplicate_of": originals.get(place),
        }
        for place, (record, example, text) in enumerate(zip(task.records, task.train, texts, strict=True))
    ]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    versions["device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return versions
