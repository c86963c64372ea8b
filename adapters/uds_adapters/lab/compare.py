"""Several policies and seeds on one task: the grid of runs, and the folder of results."""

from __future__ import annotations

import itertools
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from . import report
from .errors import LabError
from .model import load_model, quiet
from .policies import make_policy
from .run import RunResult, run
from .settings import Settings, Source
from .summary import summarise, verdict
from .task import Task
from .threads import threads

__all__ = ["claim", "compare", "describe", "save"]

Progress = Callable[[str, int, int], None]
"""Told policy, seed and number of steps done."""

_VERSIONED = ("uds-core", "torch", "transformers", "accelerate", "peft", "numpy", "plotly")


def claim(folder: Path, /, *, overwrite: bool) -> None:
    """Make the output folder; refuse one that holds something already."""
    if folder.exists() and not folder.is_dir():
        msg = f"`output` {folder} is a file: expected a folder, or a name for a new one"
        raise LabError(msg)
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        msg = f"`output` {folder} already holds files: name another folder, or replace its results with `--overwrite`"
        raise LabError(msg)
    folder.mkdir(parents=True, exist_ok=True)


def compare(
    task: Task,
    /,
    *,
    policies: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    folder: Path,
    progress: Progress | None = None,
    save_model: bool = False,
) -> list[RunResult]:
    """Train one model anew for every seed and policy.

    For one seed, all policies start from the same weights and see the same candidates in the same order. Runs of
    different policies alternate, so that a machine that slows down slows all of them. With `save_model`, each run saves
    its model in `folder`, so that the last one stays.
    """
    check(policies, seeds=seeds, settings=settings)
    heldout = task.measure()
    results: list[RunResult] = []
    with threads(settings.threads), quiet():
        _warm_up(task, settings, folder)
        for seed, policy in itertools.product(seeds, policies):
            result = run(
                load_model(task.model),
                tokenizer=task.tokenizer,
                train=task.train,
                collator=task.collator,
                policy=policy,
                seed=seed,
                settings=settings,
                folder=folder,
                heldout=heldout,
                after_step=_told(progress, policy, seed),
                save=save_model,
            )
            results.append(result)
    return results


def check(policies: Sequence[str], /, *, seeds: Sequence[int], settings: Settings) -> None:
    """Raise before the first run what would otherwise end a later one."""
    if len(set(policies)) != len(policies):
        msg = f"`policy` names one twice: {', '.join(policies)}"
        raise LabError(msg)
    if not seeds:
        msg = "`seeds` must be at least 1, got 0"
        raise LabError(msg)
    for policy in policies:
        make_policy(policy, keep=settings.keep, seed=seeds[0])
    if torch.cuda.device_count() > 1:
        msg = "several GPUs are visible, and runs are compared on one: set CUDA_VISIBLE_DEVICES=0"
        raise LabError(msg)


def describe(
    task: Task,
    results: Sequence[RunResult],
    /,
    *,
    source: Source,
    settings: Settings,
    command: str,
    flags: Mapping[str, Sequence[bool]] | None = None,
) -> dict[str, Any]:
    """Everything about the runs that is worth keeping, ready for JSON.

    Parameters
    ----------
    task, results
        What was trained, and what came of it.
    source, settings, command
        How it was asked for.
    flags
        See `summarise`.
    """
    summaries = summarise(results, flags=flags)
    return {
        "command": command,
        "configuration": {
            **_plain(asdict(source)),
            **asdict(settings),
            "steps": results[0].steps,
            "policies": [summary.policy for summary in summaries],
            "seeds": sorted({result.seed for result in results}),
            "training_examples": len(task.train),
            "heldout_examples": len(task.heldout),
            "left_out": task.left_out,
        },
        "versions": _versions(),
        "summary": [asdict(summary) for summary in summaries],
        "verdict": verdict(summaries),
        "runs": [asdict(result) for result in results],
        "training_lines": [record.line for record in task.records],
    }


def save(results: Mapping[str, Any], folder: Path, /) -> Path:
    """Write `results.json` and `report.html`; the path of the report."""
    (folder / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    path = folder / "report.html"
    path.write_text(report.page(results), encoding="utf-8")
    return path


def _warm_up(task: Task, settings: Settings, folder: Path) -> None:
    """One step that is thrown away, so that the first run does not pay for what libraries load late."""
    run(
        load_model(task.model),
        tokenizer=task.tokenizer,
        train=task.train,
        collator=task.collator,
        policy="uds",
        seed=0,
        settings=replace(settings, steps=1),
        folder=folder,
    )


def _told(progress: Progress | None, policy: str, seed: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda step: progress(policy, seed, step)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    versions["device"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return versions
