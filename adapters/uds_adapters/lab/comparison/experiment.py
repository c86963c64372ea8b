"""Training runs of several policies and seeds on one task."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..errors import LabError
from ..policy_spec import early, make_policy
from ..storage import claim
from ..training.run_result import RunResult
from ..training.settings import Settings
from ..training.task import Task
from . import workers
from .plan import Plan, slug
from .run_store import Runs
from .runner import Runner

__all__ = ["Progress", "check", "claim", "compare", "default_jobs"]

Progress = Callable[[str, int, int], None]
"""Called with policy, seed, and the progress of the run, in the steps that random selection would take."""


def compare(
    task: Task,
    /,
    *,
    policies: Sequence[str],
    seeds: Sequence[int],
    plan: Plan,
    runs: Runs,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[RunResult]:
    """Train one model anew for every seed and policy, unless that run is finished in the folder.

    For one seed, all policies start from the same weights and see the same candidates in the same order. Runs of
    different policies alternate, so that a machine that slows down slows all of them.

    Parameters
    ----------
    task
        What is learnt.
    policies, seeds
        The runs.
    plan
        What they have in common.
    runs
        The folder, claimed for `plan`.
    jobs
        Processes that train at once; each gets one GPU where there are some. The results are the same for any number,
        but for the time that they took, and all that follows from it under a budget of seconds.
    progress
        Called after each step.

    Returns
    -------
    list
        All results, seed after seed.
    """
    check(policies, seeds=seeds, settings=plan.settings, target=plan.source.target)
    report = progress or _nobody
    pairs = [(policy, seed) for seed, policy in itertools.product(seeds, policies)]
    missing = [pair for pair in pairs if runs.finished(*pair) is None]
    for policy, seed in pairs:
        if (policy, seed) not in missing:
            report(policy, seed, plan.settings.total_steps(len(task.train)))
    if missing and jobs == 1 and torch.cuda.device_count() <= 1:
        runner = Runner(task, plan=plan, runs=runs)
        runner.prepare(policies)
        for policy, seed in missing:
            runner(policy, seed, after_step=lambda step, p=policy, s=seed: report(p, s, step))
    elif missing:
        number = min(jobs, len(missing))
        workers.train(missing, folder=runs.folder, number=number, progress=report, prepare=policies)
    return [result for pair in pairs if (result := runs.finished(*pair)) is not None]


def check(policies: Sequence[str], /, *, seeds: Sequence[int], settings: Settings, target: Path | None = None) -> None:
    """Raise before the first run what would otherwise stop a later one."""
    names = [slug(policy, 0) for policy in policies]
    if len(set(names)) != len(names):
        msg = f"`policy` names one twice: {', '.join(policies)}"
        raise LabError(msg)
    if not seeds:
        msg = "`seeds` must be at least 1, got 0"
        raise LabError(msg)
    for policy in policies:
        make_policy(policy, keep=settings.keep, seed=seeds[0], provided=early(policy, target))


def default_jobs() -> int:
    """Return the number of GPUs, or 1."""
    return max(1, torch.cuda.device_count())


def _nobody(_policy: str, _seed: int, _step: int) -> None:
    """Ignore the progress."""
