"""Short runs of configurations. Each finished run is a file of its own, and is not repeated.

Optuna's storage does not replace these files. The intervals of the finalists need the loss of every held-out example,
and a file is whole or absent: an interrupted append to Optuna's journal makes everything after it unreadable
(Optuna 5.0). Files are named by the content of a run, so a resumed search may change `--trials`, `--rungs` or
`--search` and still use them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import storage
from ..data.candidate_order import CandidateOrder
from ..errors import LabError
from ..models import quiet
from ..system import threads
from ..training.budget import RunBudget
from ..training.run import train_once
from ..training.settings import Settings
from ..training.task import Task
from .search_space import Point, apply

__all__ = ["Trials"]

_FEWEST_STEPS = 4


@dataclass(frozen=True)
class Trials:
    """Runs on one task, alike in what they spend, whatever their configuration.

    Parameters
    ----------
    task
        What is learnt; something must be held out.
    policy, settings
        The default, which configurations differ from.
    folder
        For what has run.
    source
        Fingerprints of the files of the task, by which runs belong to it.
    seed
        Of the order that the budget is counted in, where it has no amount.
    """

    task: Task
    policy: str
    settings: Settings
    folder: Path
    seed: int
    source: Mapping[str, str]

    @cached_property
    def budget(self) -> RunBudget:
        """Budget of a full run: what random selection uses at the default's `keep`."""
        kind, amount = RunBudget.parse(self.settings.budget)
        if amount is not None:
            return RunBudget(kind=kind, amount=amount)
        order = CandidateOrder(len(self.task.train), batch_size=self.settings.batch_size, seed=self.seed)
        first = order.first(self._steps * self.settings.batch_size)
        return RunBudget.of(kind, order=first, train=self.task.train, keep=self.settings.keep)

    def check(self, share: float, /) -> None:
        """Raise an error if runs that use a `share` of the budget are too short to compare."""
        steps = self._expected(share, self.settings)
        if steps < _FEWEST_STEPS:
            msg = (
                f"the shortest runs would have {steps} steps, too few to compare: raise `--steps` (or `--epochs`, or "
                f"the amount of `--budget`), or lower `--rungs`"
            )
            raise LabError(msg)

    def __call__(
        self, point: Point, /, *, share: float, seed: int, progress: Callable[[float], None] = lambda _: None
    ) -> dict[str, Any]:
        """Return the result of a run of `point` on a `share` of the budget, ready for JSON.

        The held-out `loss`, also example by example; None where it is no number. `progress` is called with 0 to 1.
        """
        policy, settings = apply(point, policy=self.policy, settings=self.settings)
        steps = self._expected(share, settings)
        spent = f"{self.budget.kind}={share * self.budget.amount!r}"
        settings = replace(settings, budget=spent, steps=steps, eval_every=steps, metrics=())
        what = {"policy": policy, "seed": seed, "settings": {**asdict(settings), "threads": None}}
        what["source"] = dict(self.source)
        path = self.folder / f"{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        with threads(settings.threads), quiet():
            result = train_once(
                self.task,
                policy=policy,
                seed=seed,
                settings=settings,
                folder=self.folder,
                heldout=self.task.measure(),
                after_step=lambda step: progress(step / steps),
            ).result
        assert result.measured is not None
        found = {
            **what,
            "loss": result.evaluations[-1].loss,
            "losses": result.measured.losses,
            "heldout_tokens": result.measured.tokens,
            "steps": result.steps,
            "samples": result.samples,
            "tokens": result.tokens["trained"],
            "seconds": result.seconds["total"],
        }
        storage.write(path, storage.as_json(found))
        return json.loads(path.read_text(encoding="utf-8"))

    @property
    def _steps(self) -> int:
        return self.settings.total_steps(len(self.task.train))

    def _expected(self, share: float, settings: Settings) -> int:
        """Return the steps in which `settings` use it, with random selection."""
        candidates = self._steps * self.settings.batch_size
        kind, amount = RunBudget.parse(self.settings.budget)
        if amount is not None and kind == "samples":
            candidates = amount / self.settings.keep
        if kind in ("samples", "tokens", "processed"):
            candidates *= self.settings.keep / settings.keep
        return max(1, round(share * candidates / settings.batch_size))
