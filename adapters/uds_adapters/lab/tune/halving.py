"""Hyperparameter search by successive halving: configurations are proposed by Optuna and journaled for its tools.

A resumed search proposes all configurations again, from the same seeds, and reads the runs that are finished from
`Trials`. It does not continue Optuna's journal: `--trials`, `--rungs`, `--search` and others may change on resume, and
then finished runs still count, while an interrupted write would make the journal unreadable.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ..errors import LabError
from . import finalists as findings
from .finalists import Finalist
from .search_space import SETTINGS, Point, Space, apply, distributions
from .trials import Trials

__all__ = ["Configuration", "Halving", "Outcome", "search"]

_ASKED = 5  # times as many proposals as configurations: small spaces repeat themselves

Progress = Callable[[int, float], None]
"""Called with the rung, and the number of its runs that are done."""


@dataclass(frozen=True, kw_only=True)
class Halving:
    """How many configurations run, and how long.

    Parameters
    ----------
    trials
        Configurations at the start.
    reduction
        After each rung, one configuration of this many continues, with this many times the budget.
    rungs
        Their number; on the last, at the full budget, run the finalists and the default.
    seeds
        Of the runs on the last rung. The rungs before it have one, which is none of these.
    seed
        The first; of the proposals too.
    """

    trials: int = 18
    reduction: int = 3
    rungs: int = 3
    seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("trials", 2), ("reduction", 2), ("rungs", 2), ("seeds", 1)):
            if getattr(self, name) < least:
                msg = f"`{name}` must be at least {least}, got {getattr(self, name)}"
                raise LabError(msg)

    def size(self, rung: int, /) -> int:
        """Configurations on a rung, the default not counted."""
        return max(1, self.trials // self.reduction**rung)

    def share(self, rung: int, /) -> float:
        """Of the budget, that a run on a rung spends."""
        return float(self.reduction) ** (rung + 1 - self.rungs)

    def runs(self, rung: int, /) -> int:
        """On a rung, with those of the default."""
        return (self.size(rung) + 1) * (self.seeds if rung == self.rungs - 1 else 1)

    @property
    def final_seeds(self) -> range:
        """Of the last rung."""
        return range(self.seed + 1, self.seed + 1 + self.seeds)


@dataclass(kw_only=True)
class Configuration:
    """One point of the space, and its runs."""

    number: int
    point: Point
    name: str
    """Policy and searched settings, as text."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Of each: rung, seed, loss, and the difference to the default's loss under the same budget and seed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a search."""

    configurations: list[Configuration]
    default: Configuration
    finalists: list[Finalist]
    """On the last rung, the default first."""
    best: Configuration
    noise: float | None
    distinguishable: bool
    verdict: str


def search(
    trials: Trials, space: Space, halving: Halving, /, *, storage: Path, progress: Progress = lambda *_: None
) -> Outcome:
    """Run rung after rung.

    The same arguments propose the same configurations, and finished runs are not repeated. `storage`, a journal for
    Optuna's tools, is written anew each time.
    """
    for path in (storage, storage.with_name(storage.name + ".lock")):  # a killed search leaves Optuna's lock
        path.unlink(missing_ok=True)
    with _quiet():
        study = optuna.create_study(storage=_journal(storage), study_name="tune", direction="minimize")
        runner = _Runner(trials, halving, progress)
        promoted = _first_rung(study, runner, space)
        for rung in range(1, halving.rungs - 1):
            promoted = runner.best(promoted, rung)
            runner.run(promoted, rung)
            _note(study, promoted, space, TrialState.PRUNED)
        finals = runner.best(promoted, halving.rungs - 1)
        finalists = runner.finals(finals)
        _note(study, finals, space, TrialState.COMPLETE)
    default, *others = finalists
    best = findings.best_of(finalists)
    return Outcome(
        configurations=runner.configurations,
        default=runner.default,
        finalists=finalists,
        best=[runner.default, *finals][finalists.index(best)],
        noise=findings.noise(others, default),
        distinguishable=best is not default and findings.distinguishable(best),
        verdict=findings.verdict(best, default, searched=len(runner.configurations), rivals=len(others)),
    )


class _Runner:
    """Runs configurations beside the default, and reports progress."""

    def __init__(self, trials: Trials, halving: Halving, progress: Progress) -> None:
        self.trials, self.halving, self.progress = trials, halving, progress
        self.default = Configuration(number=0, point={}, name=self.name({}))
        self.configurations: list[Configuration] = []
        self._done = 0.0

    def add(self, point: Point) -> Configuration:
        self.configurations.append(
            Configuration(number=len(self.configurations) + 1, point=point, name=self.name(point))
        )
        return self.configurations[-1]

    def name(self, point: Point) -> str:
        policy, settings = apply(point, policy=self.trials.policy, settings=self.trials.settings)
        parts = {"keep": settings.keep, **{name: value for name, value in point.items() if name in SETTINGS}}
        return ", ".join([policy, *(f"{name} {value:g}" for name, value in parts.items())])

    def run(self, configurations: Sequence[Configuration], rung: int) -> None:
        for configuration in configurations:
            self._one(configuration, rung, self.halving.seed)

    def best(self, configurations: Sequence[Configuration], rung: int) -> list[Configuration]:
        """Return the configurations that continue to `rung`."""
        self._done = 0.0
        return sorted(configurations, key=_last_loss)[: self.halving.size(rung)]

    def finals(self, configurations: Sequence[Configuration]) -> list[Finalist]:
        """Run the default and the configurations at the full budget, with new seeds."""
        rung, seeds = self.halving.rungs - 1, self.halving.final_seeds
        every = [self.default, *configurations]
        runs: dict[int, list[dict[str, Any]]] = {one.number: [] for one in every}
        for seed in seeds:
            for one in every:
                runs[one.number].append(self._one(one, rung, seed))
        return [
            findings.finalist(
                one.name,
                runs[one.number],
                default=None if one is self.default else runs[self.default.number],
                rivals=len(configurations),
            )
            for one in every
        ]

    def _one(self, configuration: Configuration, rung: int, seed: int) -> dict[str, Any]:
        default = self._run(self.default, rung, seed)
        found = default if configuration is self.default else self._run(configuration, rung, seed)
        losses = found["loss"], default["loss"]
        difference = None if None in losses else losses[0] - losses[1]
        row = {"rung": rung, "seed": seed, "loss": losses[0], "difference": difference}
        for owner, mine in ((configuration, row), (self.default, {**row, "loss": losses[1], "difference": 0.0})):
            if not any((run["rung"], run["seed"]) == (rung, seed) for run in owner.runs):
                owner.runs.append(mine)
                self._done += 1
                self.progress(rung, self._done)
        return found

    def _run(self, configuration: Configuration, rung: int, seed: int) -> dict[str, Any]:
        before = self._done
        return self.trials(
            configuration.point,
            share=self.halving.share(rung),
            seed=seed,
            progress=lambda done: self.progress(rung, before + min(done, 0.99)),
        )


def _first_rung(study: optuna.Study, runner: _Runner, space: Space) -> list[Configuration]:
    """Run proposals, each informed by those before; none twice, and never the default."""
    halving, seen = runner.halving, set()
    for attempt in range(_ASKED * halving.trials):
        if len(runner.configurations) == halving.trials:
            break
        # one sampler per proposal, so that a resumed search proposes the same
        study.sampler = optuna.samplers.TPESampler(
            seed=random.Random(f"{halving.seed} {attempt}").getrandbits(32),
            n_startup_trials=max(5, halving.trials // 2),
        )
        trial = study.ask(distributions(space))
        point = {name: space[name].neat(trial.params[name]) for name in space}
        if str(point) in seen or runner.name(point) == runner.default.name:
            study.tell(trial, state=TrialState.FAIL)
            continue
        seen.add(str(point))
        configuration = runner.add(point)
        runner.run([configuration], 0)
        trial.set_user_attr("configuration", configuration.number)
        trial.report(_last_loss(configuration), 0)
        study.tell(trial, state=TrialState.PRUNED)
    return list(runner.configurations)


def _note(study: optuna.Study, configurations: Sequence[Configuration], space: Space, state: TrialState) -> None:
    """Add each configuration that continued, with its losses on all rungs, for Optuna's tools."""
    for configuration in configurations:
        losses = {run["rung"]: [] for run in configuration.runs}
        for run in configuration.runs:
            losses[run["rung"]].append(math.inf if run["loss"] is None else run["loss"])
        means = {rung: sum(values) / len(values) for rung, values in losses.items()}
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=means[max(means)] if state == TrialState.COMPLETE else None,
                params=dict(configuration.point),
                distributions=distributions(space),
                intermediate_values=means,
                user_attrs={"configuration": configuration.number},
            )
        )


def _last_loss(configuration: Configuration) -> float:
    loss = configuration.runs[-1]["loss"]
    return math.inf if loss is None else loss


def _journal(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log inside the block."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
