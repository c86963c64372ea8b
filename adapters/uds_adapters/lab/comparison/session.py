"""Steps that all comparing commands share: checks, progress bars, result tables."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..console.terminal import bar, bars, console, counted
from ..errors import Interrupted, LabError
from ..report.map import LIMIT, place_records
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

__all__ = ["duration", "finish", "said", "side_by_side", "train_all"]


def side_by_side(settings: Settings, jobs: int | None, /) -> tuple[Settings, int]:
    """Return settings and number of processes; several processes on a CPU take one thread each."""
    number = lab.default_jobs() if jobs is None else jobs
    if number < 1:
        msg = f"`jobs` must be at least 1, got {number}"
        raise LabError(msg)
    shared = number > 1 and settings.threads is None and not torch.cuda.is_available()
    return (replace(settings, threads=1) if shared else settings), number


def said(task: Task, /) -> None:
    """Print what was read."""
    console.print(task.words(), highlight=False, markup=False)


def train_all(
    task: Task, /, *, policies: Sequence[str], seeds: Sequence[int], plan: Plan, runs: Runs, jobs: int
) -> list[RunResult]:
    """Train all runs, with a progress bar for each that is under way."""
    number = len(policies) * len(seeds)
    done = sum(runs.finished(policy, seed) is not None for policy in policies for seed in seeds)
    if done:
        rest = "the others are trained now" if done < number else "--overwrite begins anew"
        console.print(f"{done} of {number} runs are finished in {runs.folder}; {rest}.", soft_wrap=True, markup=False)
    try:
        with _shown(number, plan.settings.total_steps(len(task.train)), jobs=jobs) as progress:
            return lab.compare(task, policies=policies, seeds=seeds, plan=plan, runs=runs, jobs=jobs, progress=progress)
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
    mapped: int = LIMIT,
) -> Mapping[str, Any]:
    """Write the folder; show the tables, the verdict, and the path of the report; return what was written.

    At most `mapped` records are on the report's map, each of which costs a forward pass.
    """
    command = shlex.join(["uds", *sys.argv[1:]])
    with (
        bar("drawing a map of the records", total=min(mapped, len(task.train))) as drawn,
        threads(plan.settings.threads),
    ):
        chart = place_records(task, seed=plan.seed, limit=mapped, after=drawn)
    found = describe(task, results, plan=plan, runs=runs, command=command, flags=flags, chart=chart)
    with counted("drawing the report") as drawn:
        report = save(found, runs.folder, after=drawn)
    console.print(*tables(summarise(results, flags=flags)), found["verdict"], sep="\n", markup=False)
    if found["comparisons"]:
        console.print(
            "Loss in nats per token, lower is better; ± is half of a 95 % interval over seeds and held-out samples."
        )
    console.print(f"Report: {report}", soft_wrap=True, markup=False)
    return found


def duration(seconds: float, /) -> str:
    """Return seconds in a unit that suits them."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


@contextmanager
def _shown(number: int, steps: int, *, jobs: int) -> Iterator[lab.Progress]:
    """Show bars: one of all runs, and one for each that has begun and not ended; after the first, what remains."""
    with bars() as shown:
        every = shown.add_task("runs finished", total=number)
        rows: dict[tuple[str, int], Any] = {}
        finished: set[tuple[str, int]] = set()  # a run may report its end several times
        began: dict[tuple[str, int], float] = {}  # of runs that are not from an earlier call
        estimated = False

        def progress(policy: str, seed: int, step: int) -> None:
            nonlocal estimated
            run = (policy, seed)
            if step < steps:
                began.setdefault(run, time.perf_counter())
            if run not in rows:
                rows[run] = shown.add_task(f"{policy}, seed {seed}", total=steps)
            shown.update(rows[run], completed=step, visible=step < steps)
            if step >= steps:
                finished.add(run)
                left = number - len(finished)
                if run in began and left and not estimated:
                    estimated = True
                    took = time.perf_counter() - began[run]
                    console.print(
                        f"{policy}, seed {seed}, took {duration(took)} with its evaluations; at that speed the "
                        f"other {left} runs take about {duration(took * left / jobs)}."
                    )
                shown.update(every, completed=len(finished))

        yield progress
