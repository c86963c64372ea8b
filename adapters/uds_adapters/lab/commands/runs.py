"""What commands that train share: checks before the first run, bars while they run, tables afterwards."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import compare as lab
from ..run import RunResult
from ..settings import Settings, Source
from ..summary import summarise, verdict
from ..tables import tables
from ..task import Task, prepare
from ..terminal import bars, console

__all__ = ["checked", "finish", "train_all"]


def checked(
    source: Source, settings: Settings, *, policies: Sequence[str], seeds: Sequence[int], output: Path, overwrite: bool
) -> Task:
    """Check everything that can be wrong before the first run, and read the task."""
    lab.check(policies, seeds=seeds, settings=settings)
    task = prepare(source, seed=seeds[0])
    settings.total_steps(len(task.train))
    lab.claim(output, overwrite=overwrite)
    said = f"{len(task.train)} training examples, {len(task.heldout)} held out"
    if task.left_out:
        said += f"; {task.left_out} left out, whose prompt alone fills {source.max_length} tokens"
    console.print(said + ".")
    return task


def train_all(
    task: Task,
    *,
    policies: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    output: Path,
    save_model: bool = False,
) -> list[RunResult]:
    """All runs, with a bar for each."""
    steps = settings.total_steps(len(task.train))
    with bars() as shown:
        rows = {(p, s): shown.add_task(f"{p}, seed {s}", total=steps, start=False) for s in seeds for p in policies}

        def told(policy: str, seed: int, step: int) -> None:
            shown.start_task(rows[policy, seed])
            shown.update(rows[policy, seed], completed=step)

        return lab.compare(
            task,
            policies=policies,
            seeds=seeds,
            settings=settings,
            folder=output,
            progress=told,
            save_model=save_model,
        )


def finish(
    task: Task,
    results: Sequence[RunResult],
    *,
    source: Source,
    settings: Settings,
    output: Path,
    flags: Any = None,
) -> None:
    """Write the folder; show the table, a sentence on it, and where the report is."""
    command = shlex.join(["uds", *sys.argv[1:]])
    report = lab.save(
        lab.describe(task, results, source=source, settings=settings, command=command, flags=flags), output
    )
    summaries = summarise(results, flags=flags)
    console.print(*tables(summaries), verdict(summaries), sep="\n")
    console.print(f"Report: {report}", soft_wrap=True)
