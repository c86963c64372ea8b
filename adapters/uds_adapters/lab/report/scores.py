"""Scores along a run, from its audit: quantiles of chosen and other candidates, relative to the pool's median."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ... import audit
from ..errors import LabError

__all__ = ["Scores"]

_BINS = 60  # along the steps
_SAMPLED = 400  # values per bin and group; a random sample of them if there are more
_LEVELS = (0.1, 0.5, 0.9)
_NOT_SCORES = ("step", "optimizer_step", "position", "id", "chosen")


class Scores:
    """Quantiles of the scores in the audits of all runs, in bounded memory.

    A policy chooses within a pool, and the level of its scores differs between steps and seeds: so the median of
    the pool is subtracted from each score.

    Attributes
    ----------
    offered
        (policy, seed) -> the records that were candidates.
    missing
        Audits that the results name and that do not exist.
    """

    def __init__(self) -> None:
        self.offered: dict[tuple[str, int], set[int]] = {}
        self.missing: list[str] = []
        self._bins: dict[str, dict[str, dict[int, tuple[_Sample, _Sample]]]] = {}
        self._width: dict[str, int] = {}
        self._draw = random.Random(0)

    def add(self, runs: Iterable[Mapping[str, Any]], /, *, after: Callable[[], None]) -> None:
        """Read the audits of `runs`; `after` is called after each.

        Raises
        ------
        LabError
            If an audit is damaged.
        """
        for run in runs:
            if not run.get("audit"):
                continue
            try:
                self._read(run)
            except FileNotFoundError:
                self.missing.append(str(run["audit"]))
            except ValueError as error:
                msg = f"the audit {run['audit']} cannot be read: {error}"
                raise LabError(msg) from None
            after()

    def quantiles(self) -> dict[str, Any]:
        """Return policy -> part of the score -> points along the steps, with three quantiles of chosen and others."""
        return {
            policy: {part: self._points(policy, bins) for part, bins in sorted(parts.items(), key=_score_first)}
            for policy, parts in self._bins.items()
            if parts
        }

    def _read(self, run: Mapping[str, Any]) -> None:
        policy = run["policy"]
        parts = self._bins.setdefault(policy, defaultdict(dict))
        width = self._width.setdefault(policy, -(-max(1, run["steps"]) // _BINS))
        offered = self.offered.setdefault((policy, run["seed"]), set())
        for step, rows in itertools.groupby(audit.read(run["audit"]), key=lambda row: row["step"]):
            pool = list(rows)
            offered.update(row["id"] for row in pool if isinstance(row.get("id"), int))
            for name in dict.fromkeys(name for row in pool for name in row if name not in _NOT_SCORES):
                known = [(row[name], row["chosen"]) for row in pool if _is_number(row.get(name))]
                if not known:
                    continue
                middle = median(value for value, _ in known)
                chosen, rest = parts[name].setdefault(step // width, (_Sample(self._draw), _Sample(self._draw)))
                for value, was_chosen in known:
                    (chosen if was_chosen else rest).add(value - middle)

    def _points(self, policy: str, bins: Mapping[int, tuple[_Sample, _Sample]]) -> list[dict[str, Any]]:
        width = self._width[policy]
        return [
            {"step": number * width + (width - 1) / 2, "chosen": chosen.levels(), "rest": rest.levels()}
            for number, (chosen, rest) in sorted(bins.items())
        ]


class _Sample:
    """A uniform random sample of all values that were added (reservoir sampling)."""

    def __init__(self, draw: random.Random) -> None:
        self.values: list[float] = []
        self._seen, self._draw = 0, draw

    def add(self, value: float) -> None:
        self._seen += 1
        if len(self.values) < _SAMPLED:
            self.values.append(value)
        elif (place := self._draw.randrange(self._seen)) < _SAMPLED:
            self.values[place] = value

    def levels(self) -> list[float] | None:
        return [_quantile(sorted(self.values), level) for level in _LEVELS] if self.values else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _quantile(ordered: Sequence[float], level: float) -> float:
    place = level * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _score_first(item: tuple[str, Any]) -> tuple[bool, str]:
    return item[0] != "score", item[0]
