"""Tables and a picture of a grid, block by block.

    python benchmarks/quality/tables.py grid           # prints tables of benchmarks/results/quality_grid.jsonl
    python benchmarks/quality/tables.py grid --write   # and writes them to benchmarks/quality/grid.md, with pictures

Needs scipy; the pictures, matplotlib. What the differences, intervals and p are, `analysis.py` says.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import clock
from analysis import CONTROL, Comparison, Interval, Runs, compare, metric, read
from grid import blocks

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def report(block: dict[str, Any], runs: Runs, found: Sequence[Comparison]) -> str:
    """A table for each place, the best first, and one of the pairs; in Markdown."""
    lines = []
    for place, policies in runs.items():
        task, condition, keep, equal = place
        answers = metric([run for runs in policies.values() for run in runs.values()])
        seeds = max(map(len, policies.values()))
        against = {one.policy: one for one in found if one.place == place and one.rival == CONTROL}
        head = ["policy", "held-out loss", "against random", "p"]
        head += [] if answers is None else [answers.replace("_", " "), "against random"]
        head += ["tokens trained", "distinct", "wrong"]
        lines += [
            f"#### {task}, {condition}, keep {keep:g}, equal {equal}, {seeds} seeds\n",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *_rows(policies, against, answers=answers),
            "",
        ]
    pairs = [one for one in found if one.rival != CONTROL]
    if pairs:
        lines += ["#### Pairs\n", "| where | | difference in loss | p |", "|---|---|---|---|", *map(_pair, pairs), ""]
    if block["equal"] == "seconds":
        lines.append(clock.report(runs))
    return "\n".join(lines)


def _rows(
    policies: dict[str, dict[int, dict[str, Any]]], against: dict[str, Comparison], *, answers: str | None
) -> list[str]:
    found = []
    for policy, by_seed in policies.items():
        runs, one = list(by_seed.values()), against.get(policy)
        loss = fmean(run["loss"] for run in runs)
        entries = [f"`{policy}`", f"{loss:.3f}", _shown(one and one.loss), f"{one.loss.p:.2g}" if one else ""]
        if answers is not None:
            entries += [f"{fmean(run[answers] for run in runs):.3f}", _shown(one and one.answers)]
        entries += [f"{fmean(run['tokens']['trained'] for run in runs):,.0f}"]
        entries += [f"{fmean(run[flag] for run in runs):.2f}" for flag in ("distinct", "wrong")]
        found.append((loss, f"| {' | '.join(entries)} |"))
    return [row for _, row in sorted(found)]


def _pair(one: Comparison) -> str:
    task, condition, keep, _ = one.place
    where = f"{task}, {condition}, keep {keep:g}"
    return f"| {where} | `{one.policy}` minus `{one.rival}` | {_shown(one.loss)} | {one.loss.p:.2g} |"


def _shown(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if not math.isfinite(interval.half_width):  # one seed, or runs that are the same
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} ± {interval.half_width:.3f}"


def plot(found: Sequence[Comparison], file: Path) -> None:
    """Differences to random and their intervals, a panel a place."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    found = [one for one in found if one.rival == CONTROL]
    places = list(dict.fromkeys(one.place for one in found))
    policies = list(dict.fromkeys(one.policy for one in found))
    columns = 2 if len(places) == 4 else min(3, len(places))
    rows = -(-len(places) // columns)
    size = (1.5 + 2.9 * columns, rows * (1.0 + 0.27 * len(policies)))
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axis, place in zip(axes.flat, places, strict=False):
        for one in (one for one in found if one.place == place):
            colour = "#888888" if not one.loss.clear else "#009e73" if one.loss.mean < 0 else "#d55e00"
            height = len(policies) - 1 - policies.index(one.policy)
            width = one.loss.half_width if one.seeds > 1 else 0.0
            axis.errorbar(one.loss.mean, height, xerr=width, fmt="o", ms=4, color=colour, capsize=2)
        axis.axvline(0, color="#222222", lw=0.8)
        axis.set_title(f"{place[0]}, {place[1]}, keep {place[2]:g}", fontsize=9)
        axis.set_xlabel("nats against random; left is better", fontsize=8)
        axis.set_yticks(range(len(policies)), policies[::-1], fontsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="x", alpha=0.25)
    for axis in axes.flat[len(places) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(file.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(file.with_suffix(".png"), dpi=150)
    plt.close(figure)


def text(file: Path, results: Path, *, model: str | None = None) -> str:
    """All blocks of the grid in `file` that have runs, in Markdown."""
    name = _name(file, model)
    parts = [f"## Runs of {file.name}" + (f" with {model}\n" if model else "\n")]
    for block_name, block in blocks(file).items():
        if runs := read(results / f"quality_{name}.jsonl", block):
            if "question" in block:
                parts.append(f"### {block_name}: {block['question']}\n")
            parts.append(report(block, runs, compare(runs, block.get("pairs", ()))))
    return "\n".join(parts)


def draw(file: Path, results: Path, *, model: str | None = None) -> None:
    """A picture for each block that has runs."""
    name = _name(file, model)
    for block_name, block in blocks(file).items():
        if runs := read(results / f"quality_{name}.jsonl", block):
            suffix = "" if block_name == file.stem else f"_{block_name}"
            found = compare(runs, block.get("pairs", ()))
            if found:  # nothing to draw where random alone was run
                plot(found, ROOT / "docs" / "figures" / f"quality_{name}{suffix}")


def _name(file: Path, model: str | None) -> str:
    return file.stem + (f"_{model}" if model else "")


def main() -> None:
    """Print; and write and draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", help="name of the grid, such as pilot")
    parser.add_argument("--model", help="name of the other model that it was run with, such as textbook80m")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--write", action="store_true", help="the tables and the pictures")
    options = parser.parse_args()
    file = HERE / f"{options.grid}.yaml"
    said = text(file, options.results, model=options.model)
    print(said)
    if options.write:
        (HERE / f"{_name(file, options.model)}.md").write_text(said, encoding="utf-8")
        draw(file, options.results, model=options.model)


if __name__ == "__main__":
    main()
