"""Whether small grids agree with committed ones: `make study` runs them.

    python benchmarks/quality/agree.py build/quality_study.jsonl build/quality_study_pays.jsonl

Wherever the committed interval of a difference excludes zero, the small grid's difference must have the same sign. What
it is compared with, its file says: `agrees_with: {grid: ..., block: ...}`. Exits with 1 where it does not agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis import Comparison, compare, read
from grid import blocks

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"


class Pair(NamedTuple):
    """A policy against its rival, in both grids."""

    small: Comparison
    committed: Comparison

    @property
    def agrees(self) -> bool:
        """Whether the signs are the same, or nothing is claimed."""
        return not self.committed.loss.clear or self.small.loss.mean * self.committed.loss.mean > 0


def matched(small: Sequence[Comparison], committed: Sequence[Comparison]) -> list[Pair]:
    """The differences that both have."""
    known = {(one.place, one.policy, one.rival): one for one in committed}
    return [Pair(one, known[one[:3]]) for one in small if one[:3] in known]


def pairs_of(results: Path) -> list[Pair]:
    """The differences of a small grid, with those that are committed."""
    (block,) = blocks(HERE / f"{results.stem.removeprefix('quality_')}.yaml").values()
    other = block["agrees_with"]
    theirs = blocks(HERE / f"{other['grid']}.yaml")[other["block"]]
    committed = compare(read(RESULTS / f"quality_{other['grid']}.jsonl", theirs), theirs.get("pairs", ()))
    return matched(compare(read(results, block), block.get("pairs", ())), committed)


def main() -> None:
    """Print both, and whether they agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="small grids' results, quality_<grid>.jsonl")
    options = parser.parse_args()
    pairs = [pair for results in options.results for pair in pairs_of(results)]
    print(f"{'difference in held-out loss':48} {'here':>8} {'committed':>18}")
    for small, large in pairs:
        where = f"{small.place[0]}, {small.place[1]}: {small.policy} minus {small.rival}"
        word = "" if not large.loss.clear else "agrees" if Pair(small, large).agrees else "DISAGREES"
        print(f"{where:48} {small.loss.mean:+8.3f} {large.loss.mean:+9.3f} ± {large.loss.half_width:.3f} {word}")
    claims = [pair for pair in pairs if pair.committed.loss.clear]
    print(f"{sum(pair.agrees for pair in claims)} of {len(claims)} differences that are known agree")
    sys.exit(not claims or not all(pair.agrees for pair in claims))


if __name__ == "__main__":
    main()
