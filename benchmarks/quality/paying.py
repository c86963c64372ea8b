"""Whether a policy pays per second: its cost H, its gain G, and the seconds in which it has random's final loss.

    python benchmarks/quality/paying.py pays           # prints a table of benchmarks/results/quality_pays.jsonl
    python benchmarks/quality/paying.py pays --write   # and writes it to benchmarks/quality/pays_seconds.md

**H**: seconds for a target token of the policy's run, scoring and preparation included, evaluation left out, over
those of random's run of the same seed. **G**: target tokens that random needs over those that the policy needs for
the same loss, the higher one of their two final ones, read off the curves of held-out losses by straight lines; the
learning rate of the run that is cut short is still high there, so G is nearer to 1 than it would be with schedules
that end there. A policy pays where G > H. **Fraction**: seconds until the policy has random's final loss over random's
seconds; and over those until random itself first had it, which is sooner where its loss rose again. Means over seeds,
geometric for ratios; p of a fraction: that it is not below three quarters, from a one-sided t-test of its logarithms,
corrected by Holm's method over the comparisons of the block.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import Any, NamedTuple

from analysis import CONTROL, Interval, compare, holm, read
from clock import reached
from grid import blocks
from scipy import stats

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
GOAL = 0.75
"""The fraction of random's seconds that is hoped for."""

Run = Mapping[str, Any]


class Pay(NamedTuple):
    """A policy against random, in one place of the grid."""

    block: str
    place: tuple[Any, ...]
    policy: str
    seeds: int
    loss: Interval
    relative: float
    """Its final loss over random's, less 1."""
    cost: float
    gain: float
    fraction: float | None
    """None where a seed does not come to random's loss."""
    fraction_p: float
    first: float | None
    """As `fraction`, over the seconds until random itself first had that loss."""
    processed: float
    """Tokens that went through the model, scoring included, over random's."""


def seconds(run: Run) -> float:
    """Of a run, with what was prepared for it, without evaluations."""
    return run["seconds"]["total"] + run["seconds"].get("preparation", 0.0)


def processed(run: Run) -> float:
    """Tokens that went through the model: forward in scoring, forward and back in training, and in preparation."""
    tokens = run["tokens"]
    return tokens["forwarded_for_scoring"] + tokens["forwarded_for_training"] + tokens.get("preparation", 0)


def cost(run: Run, random: Run) -> float:
    """H of one seed."""
    return seconds(run) / run["tokens"]["trained"] * random["tokens"]["trained"] / seconds(random)


def gain(run: Run, random: Run) -> float:
    """G of one seed."""
    loss = max(run["loss"], random["loss"])
    return _tokens(random, loss) / _tokens(run, loss)


def fraction(run: Run, random: Run) -> float | None:
    """Seconds until `run` has random's final loss over random's seconds; None where it does not come so far."""
    found = reached(run["curve"], random["loss"])
    return None if found is None else (found + run["seconds"].get("preparation", 0.0)) / seconds(random)


def first(run: Run, random: Run) -> float | None:
    """Seconds until `run` has random's final loss over those until random first had it."""
    mine, theirs = fraction(run, random), fraction(random, random)
    return None if mine is None or not theirs else mine / theirs


def _tokens(run: Run, loss: float) -> float:
    """Target tokens until the curve comes down to `loss`, which it does: as many in each step."""
    steps = reached([(0, 0, step, value) for step, _, _, value in run["curve"]], loss)
    return run["tokens"]["trained"] * (run["steps"] if steps is None else steps) / run["steps"]


def pays(file: Path, results: Path = RESULTS) -> list[Pay]:
    """Each policy of the grid against random, block by block; p corrected over the block."""
    found = []
    for name, block in blocks(file).items():
        runs = read(results / f"quality_{file.stem}.jsonl", block)
        compared, here = compare(runs), []
        for one in compared:
            mine, theirs = runs[one.place][one.policy], runs[one.place][CONTROL]
            both = [(mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())]
            known = [value for pair in both if (value := fraction(*pair)) is not None]
            firsts = [value for pair in both if (value := first(*pair)) is not None]
            here.append(
                Pay(
                    block=name, place=one.place, policy=one.policy, seeds=len(both), loss=one.loss,
                    relative=one.loss.mean / fmean(theirs[seed]["loss"] for seed in theirs),
                    cost=geometric_mean([cost(*pair) for pair in both]),
                    gain=geometric_mean([gain(*pair) for pair in both]),
                    fraction=geometric_mean(known) if len(known) == len(both) else None,
                    fraction_p=_below(GOAL, known) if len(known) == len(both) else 1.0,
                    first=geometric_mean(firsts) if len(firsts) == len(both) else None,
                    processed=geometric_mean([processed(run) / processed(random) for run, random in both]),
                )
            )  # fmt: skip
        corrected = holm([one.fraction_p for one in here])
        found += [one._replace(fraction_p=p) for one, p in zip(here, corrected, strict=True)]
    return found


def _below(goal: float, fractions: Sequence[float]) -> float:
    """Test whether their geometric mean is below the goal: p of its being no smaller than the goal."""
    if len(fractions) < 2:
        return 1.0
    test: Any = stats.ttest_1samp([math.log(value / goal) for value in fractions], 0.0, alternative="less")
    return float(test.pvalue)


def table(found: Sequence[Pay]) -> str:
    """In Markdown, a table for each task of a block, the fastest first."""
    lines = []
    for block, place in dict.fromkeys((one.block, one.place) for one in found):
        here = [one for one in found if (one.block, one.place) == (block, place)]
        task, condition, keep, _ = place
        lines += [
            f"#### {block}: {task}, {condition}, keep {keep:g}, {here[0].seeds} seeds\n",
            f"| {' | '.join(_HEAD)} |",
            "|---" * len(_HEAD) + "|",
            *map(_row, sorted(here, key=lambda one: (one.fraction or math.inf, one.loss.mean))),
            "",
        ]
    return "\n".join(lines)


_HEAD = (
    *("policy", "loss against random", "p", "H", "G", "G > H", "random's loss in, of its seconds", "p of < 75 %"),
    *("of those until it first had it", "tokens processed"),
)


def _row(one: Pay) -> str:
    width = "" if math.isinf(one.loss.half_width) else f" ± {one.loss.half_width:.3f}"
    cells = [
        f"`{one.policy}`", f"{one.loss.mean:+.3f}{width} ({one.relative:+.1%})", f"{one.loss.p:.2g}",
        f"{one.cost:.2f}", f"{one.gain:.2f}", "yes" if one.gain > one.cost else "no",
        "not reached" if one.fraction is None else f"{one.fraction:.0%}",
        "" if one.fraction is None else f"{one.fraction_p:.2g}", "" if one.first is None else f"{one.first:.0%}",
        f"{one.processed:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def text(file: Path, results: Path = RESULTS) -> str:
    """All blocks of the grid in `file` that have runs, in Markdown."""
    return f"## Costs and gains of {file.name}\n\n{table(pays(file, results))}"


def main() -> None:
    """Print; and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", help="name of the grid, such as pays")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    file = HERE / f"{options.grid}.yaml"
    said = text(file, options.results)
    print(said)
    if options.write:
        (HERE / f"{options.grid}_seconds.md").write_text(said, encoding="utf-8")


if __name__ == "__main__":
    main()
