"""Run a declared grid of trainings: every cell is a task in a condition, a policy, a share and a seed.

    python benchmarks/quality/run.py benchmarks/quality/pilot.yaml            # continues where it stopped
    python benchmarks/quality/run.py benchmarks/quality/pilot.yaml --dry-run  # what would be run

Each finished run is one line in `<results>/quality_<grid>.jsonl`, so an interrupted grid loses at most the run in hand.
On Linux set the malloc variables of benchmarks/README.md: training is several times faster with them on some machines.
"""

import argparse
import functools
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import conditions
import explored  # noqa: F401 - registers policies
import torch
import yaml

from uds_adapters.batches import IGNORE
from uds_adapters.lab.encode import Example
from uds_adapters.lab.model import load_model, quiet
from uds_adapters.lab.run import RunResult, run
from uds_adapters.lab.settings import Settings, Source
from uds_adapters.lab.task import prepare

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Cell(NamedTuple):
    """One run of the grid."""

    task: str
    condition: str
    keep: float
    seed: int
    policy: str


def parse() -> argparse.Namespace:
    """The grid, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/ and models/")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


def cells(grid: dict[str, Any]) -> Iterator[Cell]:
    """All cells, seed by seed, so that an unfinished grid has whole seeds; `full` does not depend on the share."""
    for seed, (task, condition), keep in itertools.product(grid["seeds"], _places(grid), grid["keep"]):
        for policy in grid["policies"]:
            if policy != "full" or keep == grid["keep"][0]:
                yield Cell(task, condition, keep, seed, policy)


def _places(grid: dict[str, Any]) -> list[tuple[str, str]]:
    return [(task, condition) for task, conditions in grid["tasks"].items() for condition in conditions]


def one(cell: Cell, grid: dict[str, Any], *, shared: Path, folder: Path) -> tuple[RunResult, dict[str, float]]:
    """Train, and measure; also the shares of the chosen that are wrong, and that are distinct."""
    files = conditions.write(
        cell.task, cell.condition, data=shared / "data", folder=folder, train=grid["train"], heldout=grid["heldout"],
        seed=grid["data_seed"],
    )  # fmt: skip
    source = Source(
        model=shared / "models" / grid["model"],
        data=files[0],
        eval_data=files[1],
        template="{prompt}{completion}",
        max_length=grid["max_length"],
    )
    settings = Settings(keep=cell.keep, **grid["training"])
    task = prepare(source, seed=cell.seed)
    policy = with_tokens(cell, task.train, settings.batch_size) if grid.get("equal") == "tokens" else cell.policy
    with quiet():
        result = run(
            load_model(task.model), tokenizer=task.tokenizer, train=task.train, collator=task.collator,
            policy=policy, seed=cell.seed, settings=settings, folder=folder, heldout=task.measure(),
        )  # fmt: skip
    chosen = [index for step in result.selected for index in step]
    raw = [record.raw for record in task.records]
    flags = {
        "wrong": sum(bool(raw[i].get("wrong")) for i in chosen) / len(chosen),
        "distinct": len({raw[i].get("origin") for i in chosen}) / len(chosen),
    }
    return result, flags


def with_tokens(cell: Cell, train: Sequence[Example], batch_size: int) -> str:
    """The policy with a budget of tokens a step: what chance would train on in a share `keep` of the samples.

    So all policies take as many steps, from the same candidates, and train on as many tokens in each.
    """
    if cell.policy == "full":
        return cell.policy
    trained = sum(label != IGNORE for example in train for label in example["labels"][1:])
    tokens = round(cell.keep * batch_size * trained / len(train))
    return f"{cell.policy}{',' if ':' in cell.policy else ':'}tokens={tokens}"


def line(cell: Cell, result: RunResult, flags: dict[str, float]) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        **cell._asdict(),
        "loss": result.evaluations[-1].loss,
        "curve": [[e.step, e.samples, round(e.seconds, 3), e.loss] for e in result.evaluations],
        "samples": result.samples,
        "tokens": result.tokens,
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
        **flags,
        "commit": commit(),
    }


@functools.cache
def commit() -> str:
    """Of the code that runs."""
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def done(file: Path) -> set[Cell]:
    """The cells that have been run."""
    if not file.is_file():
        return set()
    rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines() if text.strip()]
    return {Cell(*(row[name] for name in Cell._fields)) for row in rows}


def main() -> None:
    """Run what is missing."""
    options = parse()
    grid = yaml.safe_load(options.grid.read_text(encoding="utf-8"))
    torch.set_num_threads(grid["threads"])
    file = options.results / f"quality_{options.grid.stem}.jsonl"
    wanted = list(cells(grid))
    missing = [cell for cell in wanted if cell not in done(file)]
    print(f"{len(wanted)} runs, {len(wanted) - len(missing)} done")
    if options.dry_run:
        print(*missing, sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, cell in enumerate(missing, 1):
            began = time.perf_counter()
            row = line(cell, *one(cell, grid, shared=options.shared, folder=Path(folder)))
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(
                f"{number}/{len(missing)} {tuple(cell)}: {row['loss']:.4f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
