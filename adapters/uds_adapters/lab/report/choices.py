"""Statistics of the chosen records: counts, overlap of policies, lengths and properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

__all__ = ["PolicyChoices", "choices", "counts", "lengths", "overlap", "statistics"]

_BINS = 24
_LONG = 0.995  # quantile: longer records share the last bar, so that a few do not squeeze all others


class PolicyChoices(NamedTuple):
    """Indices of the records that one run trained on, and of its other candidates."""

    policy: str
    seed: int
    chosen: frozenset[int]
    rest: frozenset[int]
    """Candidates that were never chosen."""


def choices(
    runs: Sequence[Mapping[str, Any]], records: int, /, *, offered: Mapping[tuple[str, int], Collection[int]]
) -> list[PolicyChoices]:
    """Return one `PolicyChoices` per run. `offered` comes from audits; without one, all records were candidates."""
    made = []
    for run in runs:
        chosen = frozenset(index for step in run.get("selected") or () for index in step)
        candidates = offered.get((run["policy"], run["seed"])) or range(records)
        made.append(PolicyChoices(run["policy"], run["seed"], chosen, frozenset(candidates) - chosen))
    return made


def counts(runs: Sequence[Mapping[str, Any]], policy: str, /) -> Counter[int]:
    """Return how often each record was trained on, over all seeds."""
    return Counter(i for run in runs if run["policy"] == policy for step in run.get("selected") or () for i in step)


def overlap(made: Sequence[PolicyChoices], policies: Sequence[str], /) -> list[list[float | None]]:
    """Return the Jaccard index of the records that each two policies chose with one seed, mean over seeds.

    On the diagonal: a policy against itself with another seed, so with other candidates; None for a single seed.
    """
    return [[_mean_overlap(made, row, column) for column in policies] for row in policies]


def lengths(
    made: Sequence[PolicyChoices], records: Sequence[Mapping[str, Any]], policies: Sequence[str], /
) -> dict[str, Any]:
    """Return histograms of the lengths of chosen and other candidates of each policy, as fractions of the records."""
    tokens = [record["length"] for record in records]
    low, high = min(tokens), sorted(tokens)[int(_LONG * (len(tokens) - 1))]
    width = max(1, -(-(high + 1 - low) // _BINS))
    bins = max(1, -(-(high + 1 - low) // width))

    def fractions(groups: Sequence[frozenset[int]]) -> list[float] | None:
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
                "chosen": fractions([c.chosen for c in made if c.policy == policy]),
                "rest": fractions([c.rest for c in made if c.policy == policy]),
            }
            for policy in policies
        ],
    }


def statistics(
    made: Sequence[PolicyChoices], records: Sequence[Mapping[str, Any]], policies: Sequence[str], /
) -> list[dict[str, Any]]:
    """Return mean properties of the chosen and of the other candidates of each policy, over seeds."""
    rows = []
    for policy, kind in product(policies, ("chosen", "rest")):
        groups = [getattr(choice, kind) for choice in made if choice.policy == policy]
        described = [_mean_properties(group, records) for group in groups if group]
        if described:
            names = described[0].keys()
            rows.append({"policy": policy, "kind": kind, **{n: fmean(d[n] for d in described) for n in names}})
    return rows


def _mean_properties(group: frozenset[int], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return mean properties of the records of a group."""
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
