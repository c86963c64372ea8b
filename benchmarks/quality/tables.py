"""Tables and a picture of a grid: each policy against random, paired by seed.

    python benchmarks/quality/tables.py pilot           # prints tables of benchmarks/results/quality_pilot.jsonl
    python benchmarks/quality/tables.py pilot --write   # and writes them to benchmarks/quality/pilot.md, with a picture

Needs scipy; the picture, matplotlib.

A difference is loss minus random's loss of the same seed, which has the same weights at the start and sees the same
candidates: below zero is better. Intervals are Student's, at 95 %; with few seeds they are wide, as they should be. `p`
is that of the paired t-test, corrected by Holm's method over all comparisons of the grid.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from scipy import stats

ROOT = Path(__file__).parents[2]
CONTROL = "random"


class Against(NamedTuple):
    """A policy against the control, in one cell of the grid."""

    place: tuple[str, str, float]
    policy: str
    loss: float
    difference: float
    half_width: float
    p: float
    tokens: float
    seconds: float
    distinct: float
    wrong: float
    seeds: int


def read(file: Path) -> list[dict[str, Any]]:
    """The runs."""
    return [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.strip()]


def compared(runs: Sequence[dict[str, Any]]) -> list[Against]:
    """All policies, cell by cell; seeds that the control has, too."""
    cells: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for run in runs:
        cells[run["task"], run["condition"], run["keep"], run["policy"]][run["seed"]] = run
    found = []
    for (*place, policy), by_seed in cells.items():
        control = cells.get((*place, CONTROL), {})
        seeds = sorted(by_seed.keys() & control.keys())
        if seeds:
            found.append(_against(tuple(place), policy, [by_seed[s] for s in seeds], [control[s] for s in seeds]))
    return found


def corrected(found: Sequence[Against]) -> list[Against]:
    """With Holm's correction of all p."""
    order = sorted((a for a in found if a.policy != CONTROL), key=lambda a: a.p)
    worst, known = 0.0, {}
    for rank, one in enumerate(order):
        worst = max(worst, min(1.0, one.p * (len(order) - rank)))
        known[one.place, one.policy] = worst
    return [one._replace(p=known.get((one.place, one.policy), 1.0)) for one in found]


def report(found: Sequence[Against]) -> str:
    """A table for each cell, the best first, in Markdown."""
    lines = []
    for place in dict.fromkeys(one.place for one in found):
        task, condition, keep = place
        here = sorted((one for one in found if one.place == place), key=lambda one: one.loss)
        seeds = max(one.seeds for one in here)
        lines += [
            f"### {task}, {condition}, keep {keep:g}, {seeds} seeds\n",
            "| policy | held-out loss | against random | p | tokens trained | distinct | wrong |",
            "|---|---|---|---|---|---|---|",
            *map(_row, here),
            "",
        ]
    return "\n".join(lines)


def _row(one: Against) -> str:
    difference = "" if one.policy == CONTROL else f"{one.difference:+.3f} ± {one.half_width:.3f}"
    p = "" if one.policy == CONTROL else f"{one.p:.2g}"
    return (
        f"| `{one.policy}` | {one.loss:.3f} | {difference} | {p} | {one.tokens:,.0f} | {one.distinct:.2f} | "
        f"{one.wrong:.2f} |"
    )


def plot(found: Sequence[Against], file: Path) -> None:
    """Differences and their intervals, a panel a cell."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    places = list(dict.fromkeys(one.place for one in found))
    policies = list(dict.fromkeys(one.policy for one in found if one.policy != CONTROL))
    size = (1.5 + 2.9 * len(places), 1.2 + 0.3 * len(policies))
    figure, axes = plt.subplots(1, len(places), figsize=size, sharey=True, squeeze=False)
    for axis, place in zip(axes[0], places, strict=True):
        for one in (one for one in found if one.place == place and one.policy != CONTROL):
            clear = abs(one.difference) > one.half_width
            colour = "#888888" if not clear else "#009e73" if one.difference < 0 else "#d55e00"
            height = len(policies) - 1 - policies.index(one.policy)
            axis.errorbar(one.difference, height, xerr=one.half_width, fmt="o", ms=4, color=colour, capsize=2)
        axis.axvline(0, color="#222222", lw=0.8)
        axis.set_title(f"{place[0]}, {place[1]}, keep {place[2]:g}", fontsize=9)
        axis.set_xlabel("nats against random; left is better", fontsize=8)
        axis.set_yticks(range(len(policies)), policies[::-1], fontsize=8)
        axis.grid(axis="x", alpha=0.25)
    figure.tight_layout()
    figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(file.with_suffix(".png"), dpi=150)


def main() -> None:
    """Print; and draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", help="name of the grid, such as pilot")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--write", action="store_true", help="the tables and the picture")
    options = parser.parse_args()
    found = corrected(compared(read(options.results / f"quality_{options.grid}.jsonl")))
    print(report(found))
    if options.write:
        heading = f"# Runs of {options.grid}.yaml\n\n"
        (ROOT / "benchmarks" / "quality" / f"{options.grid}.md").write_text(heading + report(found), encoding="utf-8")
        plot(found, ROOT / "docs" / "figures" / f"quality_{options.grid}")


def _against(
    place: tuple[Any, ...], policy: str, runs: Sequence[dict[str, Any]], control: Sequence[dict[str, Any]]
) -> Against:
    differences = [a["loss"] - b["loss"] for a, b in zip(runs, control, strict=True)]
    half_width, p = _interval(differences)
    return Against(
        place, policy, fmean(run["loss"] for run in runs), fmean(differences), half_width, p,
        fmean(run["tokens"]["trained"] for run in runs), fmean(run["seconds"]["total"] for run in runs),
        fmean(run["distinct"] for run in runs), fmean(run["wrong"] for run in runs), len(runs),
    )  # fmt: skip


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Half of the 95 % interval of the mean, and the p of its being zero."""
    if len(values) < 2 or len(set(values)) == 1:
        return float("inf"), 1.0
    test: Any = stats.ttest_1samp(values, 0.0)
    interval = test.confidence_interval()
    return float(interval.high - interval.low) / 2, float(test.pvalue)


if __name__ == "__main__":
    main()
