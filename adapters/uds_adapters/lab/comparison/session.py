"""What commands that compare share: checks before the first run, bars while they run, tables afterwards."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..console.terminal import bar, bars, console, counted
from ..errors import Interrupted, LabError
from ..report.map import LIMIT, atlas
from ..system import threads
from ..training.run_result import RunResult
from ..training.settings import Settings
from ..training.task import Task
from . import experiment as lab
from .plan import Plan
from .results import Flags, describe, save
from .run_store import Runs
from .statistics import summarise
from .tables import tables

__all__ = ["finish", "said", "side_by_side", "train_all"]


def side_by_side(settings: Settings, jobs: int | None, /) -> tuple[Settings, int]:
    """Settings and number of processes: on a CPU, processes that take several threads each would be in their way."""
    number = lab.default_jobs() if jobs is None else jobs
    if number < 1:
        msg = f"`jobs` must be at least 1, got {number}"
        raise LabError(msg)
    shared = number > 1 and settings.threads is None and not torch.cuda.is_available()
    return (replace(settings, threads=1) if shared else settings), number


def said(task: Task, /) -> None:
    """What was read."""
    text = f"{len(task.train)} training examples, {len(task.heldout)} held out"
    if task.aside:
        text += f", {len(task.aside)} set aside for policies that need samples of their own"
    if task.left_out:
        text += f"; {task.left_out} left out, whose prompt alone fills {task.encoder.max_length} tokens"
    console.print(text + ".")


def train_all(
    task: Task, /, *, policies: Sequence[str], seeds: Sequence[int], plan: Plan, runs: Runs, jobs: int
) -> list[RunResult]:
    """All runs, with a bar for each that is under way."""
    number = len(policies) * len(seeds)
    done = sum(runs.finished(policy, seed) is not None for policy in policies for seed in seeds)
    if done:
        rest = "the others are trained now" if done < number else "--overwrite begins anew"
        console.print(f"{done} of {number} runs are finished in {runs.folder}; {rest}.", soft_wrap=True)
    try:
        with _shown(number, plan.settings.total_steps(len(task.train))) as told:
            return lab.compare(task, policies=policies, seeds=seeds, plan=plan, runs=runs, jobs=jobs, progress=told)
    except KeyboardInterrupt:
        done = sum(runs.finished(policy, seed) is not None for policy in policies for seed in seeds)
        msg = (
            f"{done} of {number} runs are finished and kept in {runs.folder}; the same command goes on with the others."
        )
        raise Interrupted(msg) from None


def finish(
    task: Task,
    results: Sequence[RunResult],
    /,
    *,
    plan: Plan,
    runs: Runs,
    flags: Flags | None = None,
) -> Mapping[str, Any]:
    """Write the folder; show the tables, the verdict, and where the report is. What was written."""
    command = shlex.join(["uds", *sys.argv[1:]])
    with bar("drawing a map of the records", total=min(LIMIT, len(task.train))) as told, threads(plan.settings.threads):
        chart = atlas(task, seed=plan.seed, after=told)
    found = describe(task, results, plan=plan, runs=runs, command=command, flags=flags, chart=chart)
    with counted("drawing the report") as told_of:
        report = save(found, runs.folder, after=told_of)
    console.print(*tables(summarise(results, flags=flags)), found["verdict"], sep="\n")
    if found["comparisons"]:
        console.print(
            "Loss in nats per token, lower is better; ± is half of a 95 % interval over seeds and held-out samples."
        )
    console.print(f"Report: {report}", soft_wrap=True)
    return found


@contextmanager
def _shown(number: int, steps: int) -> Iterator[lab.Progress]:
    """Bars: one of all runs, and one for each that has begun and not ended."""
    with bars() as shown:
        every = shown.add_task("runs finished", total=number)
        rows: dict[tuple[str, int], Any] = {}
        finished: set[tuple[str, int]] = set()  # a run may say several times that it is at its end

        def told(policy: str, seed: int, step: int) -> None:
            run = (policy, seed)
            if run not in rows:
                rows[run] = shown.add_task(f"{policy}, seed {seed}", total=steps)
            shown.update(rows[run], completed=step, visible=step < steps)
            if step >= steps:
                finished.add(run)
                shown.update(every, completed=len(finished))

        yield told
