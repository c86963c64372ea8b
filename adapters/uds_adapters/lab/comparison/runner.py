"""Training runs in one process, each written when it is finished."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ...audit import Audit
from ..models import quiet
from ..system import threads
from ..training import policy_inputs
from ..training.run import train_once
from ..training.run_result import RunResult
from ..training.task import Task
from .plan import Plan
from .run_store import Runs

__all__ = ["Runner"]


class Runner:
    """Trains the model of a task anew for each policy and seed.

    Parameters
    ----------
    task
        Model and data.
    plan
        Settings shared by all runs.
    runs
        Folder of the results.
    """

    def __init__(self, task: Task, /, *, plan: Plan, runs: Runs) -> None:
        self.task, self.plan, self.runs = task, plan, runs
        self.heldout = task.measure(plan.settings)
        self._warm = False

    def prepare(self, policies: Sequence[str], /) -> None:
        """Prepare the inputs that some policies need."""
        with self._ready():
            policy_inputs.prepare(
                self.task,
                policies,
                source=self.plan.source,
                settings=self.plan.settings,
                seed=self.plan.seed,
                folder=self.runs.provisions,
            )

    def __call__(self, policy: str, seed: int, /, *, after_step: Callable[[int], None] | None = None) -> RunResult:
        """Train one run and write its result."""
        with self._ready():
            self._warm_up()
            settings, folder = self.plan.settings, self.runs.provisions
            given = policy_inputs.provide(self.task, policy, settings=settings, seed=seed, folder=folder)
            with Audit(self.runs.fresh_audit(policy, seed)) as audit:
                trained = train_once(
                    self.task,
                    policy=policy,
                    seed=seed,
                    settings=settings,
                    folder=self.runs.folder,
                    heldout=self.heldout,
                    options=given.options,
                    selection={"audit": audit, **given.selection},
                    after_step=after_step,
                )
            result = given.costed(trained.result)
            self.runs.keep(result)
        return result

    @contextlib.contextmanager
    def _ready(self) -> Iterator[None]:
        with threads(self.plan.settings.threads), quiet():
            yield

    def _warm_up(self) -> None:
        """Train one step that is discarded, so that lazy loading of libraries is not counted in the first run."""
        if self._warm:
            return
        train_once(
            self.task,
            policy="uds",
            seed=0,
            settings=replace(self.plan.settings, steps=1, budget="candidates"),
            folder=self.runs.folder,
        )
        self._warm = True
