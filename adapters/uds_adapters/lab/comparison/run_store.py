"""Folder of runs: claiming it, and reading and writing finished runs."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import storage
from ..errors import LabError
from ..evaluation.heldout import Measured
from ..training.run_result import Evaluation, RunResult
from .plan import Plan, slug

__all__ = ["Runs"]

_PLAN, _OF_PLAN = "plan.json", "plan"
_PATHS = ("model", "data", "eval_data", "reference_model", "target")  # their fingerprints are compared
_FREE = ("threads",)  # which the number of processes decides too


class Runs:
    """The runs below `folder`.

    Attributes
    ----------
    folder
        Holds `plan.json`; in `runs/` a file for each finished run and its audit; in `provisions/` what some policies
        need.
    """

    def __init__(self, folder: Path, /) -> None:
        self.folder, self.runs, self.provisions = folder, folder / "runs", folder / "provisions"
        self._plan: str | None = None  # fingerprint of what it was claimed for, whatever the folder says later

    def claim(self, plan: Plan, /, *, overwrite: bool) -> None:
        """Make the folder this plan's: a new one, or one that was begun with the same plan; else refuse.

        Parameters
        ----------
        plan
            What the runs are to have in common.
        overwrite
            Begin anew in a folder that holds something else; of what is there, only earlier runs are deleted.

        Raises
        ------
        LabError
            Where the folder holds runs of another plan, or other files.
        """
        planned = plan.as_json()
        begun = self.folder / _PLAN
        results = any(self.runs.glob("*.json")) or any(self.provisions.glob("*.json"))
        if not overwrite and begun.is_file() and results:
            self._check(planned, json.loads(begun.read_text(encoding="utf-8")))
        else:
            started = (_PLAN, "runs", "provisions") if begun.is_file() else ()
            storage.claim(self.folder, overwrite=overwrite, leftovers=started)
            for old in (self.runs, self.provisions):
                shutil.rmtree(old, ignore_errors=True)
        storage.write(begun, json.dumps(planned, indent=1))  # anew too: paths may lead to the same files by another way
        storage.folder(self.runs)
        self._plan = _fingerprint(planned)

    def plan(self) -> Plan:
        """Return the plan that the folder was claimed with, by this process or by the one that started it."""
        planned = json.loads((self.folder / _PLAN).read_text(encoding="utf-8"))
        self._plan = self._plan or _fingerprint(planned)
        return Plan.of_json(planned)

    def finished(self, policy: str, seed: int, /) -> RunResult | None:
        """Return the result of a run; None if it is not finished.

        Raises
        ------
        LabError
            If the file cannot be read, or if its run was one of another plan.
        """
        file = self.runs / f"{slug(policy, seed)}.json"
        if not file.is_file():
            return None
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            plan, result = values.pop(_OF_PLAN, None), _read(values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"{file} cannot be read ({error}): delete it, and its run is trained again"
            raise LabError(msg) from None
        if plan != self._of_plan():
            msg = (
                f"{file} is the result of another configuration than {self.folder / _PLAN}: delete it, and its run is "
                "trained again, or begin anew with `--overwrite`"
            )
            raise LabError(msg)
        return result

    def keep(self, result: RunResult, /) -> None:
        """Write the result of a finished run, with the fingerprint of its plan."""
        file = self.runs / f"{slug(result.policy, result.seed)}.json"
        storage.write(file, storage.as_json({_OF_PLAN: self._of_plan(), **asdict(result)}))

    def fresh_audit(self, policy: str, seed: int, /) -> Path:
        """Return the audit file of a run, after deleting what an unfinished run wrote there."""
        name = slug(policy, seed)
        for old in self.runs.glob(f"{name}.audit*.jsonl"):
            old.unlink()
        return self.runs / f"{name}.audit.jsonl"

    def audit(self, policy: str, seed: int, /) -> str | None:
        """Return the path of the audit relative to the folder, where there is one."""
        file = self.runs / f"{slug(policy, seed)}.audit.jsonl"
        return file.relative_to(self.folder).as_posix() if file.is_file() else None

    def _of_plan(self) -> str | None:
        if self._plan is None and (self.folder / _PLAN).is_file():
            self.plan()
        return self._plan

    def _check(self, planned: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
        found = (one for one in _differences(begun, planned) if one[0] not in (*_PATHS, *_FREE))
        different = [f"{name} was {was}, now {now}" for name, was, now in found]
        if different:
            msg = (
                f"`output` {self.folder} was begun with another configuration ({'; '.join(different)}): use that one "
                "to go on, name another folder, or begin anew with `--overwrite`"
            )
            raise LabError(msg)


def _fingerprint(planned: Mapping[str, Any]) -> str:
    """Return the hash of a plan, without paths and what does not change a result."""
    source = {name: value for name, value in planned["source"].items() if name not in _PATHS}
    settings = {name: value for name, value in planned["settings"].items() if name not in _FREE}
    text = json.dumps({**planned, "source": source, "settings": settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _differences(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            below = key if name in ("", "source", "settings") else f"{name}.{key}"
            yield from _differences(a.get(key), b.get(key), below)
    elif a != b:
        yield name, a, b


def _read(values: dict[str, Any]) -> RunResult:
    measured = values.pop("measured")
    evaluations = [Evaluation(**{**one, "loss": _number(one["loss"])}) for one in values.pop("evaluations")]
    if measured is not None:
        measured = Measured(**{**measured, "losses": [_number(loss) for loss in measured["losses"]]})
    return RunResult(**values, evaluations=evaluations, measured=measured)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
