"""Who chose what: how often, how much policies agree, and what the chosen have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

__all__ = ["PolicyChoices", "choices", "counts", "lengths", "overlap", "statistics"]

_BINS = 24
_LONG = 0.995  # of the records; longer ones share the last bar, which would else squeeze all others


class PolicyChoices(NamedTuple):
    """What one run chose of what it was offered: indices of records."""

    policy: str
    seed: int
    chosen: frozenset[int]
    rest: frozenset[int]
    """Offered, and never chosen."""


def choices(
    runs: Sequence[Mapping[str, Any]], records: int, /, *, offered: Mapping[tuple[str, int], Collection[int]]
) -> list[PolicyChoices]:
    """One a run. `offered` is known from audits; a run without one counts as offered all records."""
    made = []
    for run in runs:
        chosen = frozenset(index for step in run.get("selected") or () for index in step)
        candidates = offered.get((run["policy"], run["seed"])) or range(records)
        made.append(PolicyChoices(run["policy"], run["seed"], chosen, frozenset(candidates) - chosen))
    return made


def counts(runs: Sequence[Mapping[str, Any]], policy: str, /) -> Counter[int]:
    """How often each record was trained on, over all seeds."""
    return Counter(i for run in runs if run["policy"] == policy for step in run.get("selected") or () for i in step)


def overlap(made: Sequence[PolicyChoices], policies: Sequence[str], /) -> list[list[float | None]]:
    """Jaccard index of what two policies chose from the same candidates, mean over seeds.

    On the diagonal a policy against itself with another seed, so with other candidates; None where there is one seed.
    """
    return [[_mean_overlap(made, row, column) for column in policies] for row in policies]


def lengths(
    made: Sequence[PolicyChoices], records: Sequence[Mapping[str, Any]], policies: Sequence[str], /
) -> dict[str, Any]:
    """Histograms of the lengths of what each policy chose and left, as shares."""
    tokens = [record["length"] for record in records]
    low, high = min(tokens), sorted(tokens)[int(_LONG * (len(tokens) - 1))]
    width = max(1, -(-(high + 1 - low) // _BINS))
    bins = max(1, -(-(high + 1 - low) // width))

    def shares(groups: Sequence[frozenset[int]]) -> list[float] | None:
        counted = Counter(min((tokens[i] - low) // width, bins - 1) for group in groups for i in group)
        total = sum(counted.values())
        return [counted[n] / total for n in range(bins)] if total else None

    return {
        "start": low,
        "width": width,
        "longest": max(tokens),
        "policies": [
            {
                "policy": policy,
                "chosen": shares([c.chosen for c in made if c.policy == policy]),
                "rest": shares([c.rest for c in made if c.policy == policy]),
            }
            for policy in policies
        ],
    }


def statistics(
    made: Sequence[PolicyChoices], records: Sequence[Mapping[str, Any]], policies: Sequence[str], /
) -> list[dict[str, Any]]:
    """Two rows a policy: what its chosen records have in common, and those that it left; means over seeds."""
    rows = []
    for policy, kind in product(policies, ("chosen", "rest")):
        groups = [getattr(choice, kind) for choice in made if choice.policy == policy]
        described = [_described(group, records) for group in groups if group]
        if described:
            names = described[0].keys()
            rows.append({"policy": policy, "kind": kind, **{n: fmean(d[n] for d in described) for n in names}})
    return rows


def _described(group: frozenset[int], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Known properties of some records."""
    originals = {i: records[i].get("duplicate_of") for i in group}
    flags = records[0].get("flags") or {}
    return {
        "records": len(group),
        "length": fmean(records[i]["length"] for i in group),
        "trained": fmean(records[i]["trained"] for i in group),
        "duplicates": fmean(original is not None for original in originals.values()),
        "with_original": fmean(original in group for original in originals.values()),
        **{f"flag:{name}": fmean(bool(records[i]["flags"].get(name)) for i in group) for name in flags},
    }


def _mean_overlap(made: Sequence[PolicyChoices], row: str, column: str) -> float | None:
    pairs = [
        (a.chosen, b.chosen)
        for a, b in product(made, made)
        if a.policy == row and b.policy == column and (a.seed == b.seed) != (row == column)
    ]
    indices = [len(a & b) / len(a | b) for a, b in pairs if a | b]
    return fmean(indices) if indices else None
