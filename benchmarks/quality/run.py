"""Run a declared grid of trainings: every cell is a task in a condition, a policy, a share and a seed.

    python benchmarks/quality/run.py benchmarks/quality/grid.yaml                 # continues where it stopped
    python benchmarks/quality/run.py benchmarks/quality/grid.yaml --dry-run       # what would be run
    python benchmarks/quality/run.py benchmarks/quality/grid.yaml --block guards  # a block alone

Each finished run is one line in `<results>/quality_<grid>.jsonl`, so an interrupted grid loses at most the run in hand.
Two processes may share a grid: `--part 1/2` and `--part 2/2`. On Linux set the malloc variables of
benchmarks/README.md: training is several times faster with them on some machines.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import conditions
import explored  # noqa: F401 - registers policies
import torch
from grid import Cell, blocks, cells, spelled

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Example
from uds_adapters.lab.data.source import Source
from uds_adapters.lab.model_paths import locate
from uds_adapters.lab.models import quiet
from uds_adapters.lab.training import policy_inputs
from uds_adapters.lab.training.run import train_once
from uds_adapters.lab.training.run_result import RunResult
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.task import Task, prepare

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def parse() -> argparse.Namespace:
    """The grid, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/ and models/")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument(
        "--model", type=Path, help="folder of another model than the grid names; its runs have a file of their own"
    )
    parser.add_argument("--block", action="append", help="only this one; again for more")
    parser.add_argument("--task", action="append", help="only this one; again for more")
    parser.add_argument("--part", default="1/1", help="every so many-th run, such as 1/2 and 2/2")
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


def one(cell: Cell, block: dict[str, Any], *, shared: Path, folder: Path) -> tuple[RunResult, dict[str, float]]:
    """Train, and measure; also the fractions of the chosen that are wrong, distinct, and wanted."""
    task, source = read(cell, block, shared=shared, folder=folder)
    by_choice = task.heldout_records[0].choices and block.get("accuracy", True)
    measured = ("accuracy",) if by_choice else tuple(block.get("metrics", ()))
    settings = Settings(keep=cell.keep, metrics=measured, **block["training"])
    policy = spelled(cell.policy, block.get("defaults", {}))
    if cell.equal == "tokens":
        policy = with_tokens(policy, cell.keep, task.train, settings.batch_size)
    if cell.equal == "seconds":
        settings = replace(settings, budget=f"seconds={block['seconds'][cell.task]}")
    with quiet():
        made = folder / "-".join(map(str, (cell.task, cell.condition, cell.keep, cell.seed)))
        policy_inputs.prepare(task, [policy], source=source, settings=settings, seed=cell.seed, folder=made)
        given = policy_inputs.provide(task, policy, settings=settings, seed=cell.seed, folder=made)
        result = train_once(
            task, policy=policy, seed=cell.seed, settings=settings, folder=folder, heldout=task.measure(settings),
            options=given.options, selection=given.selection,
        ).result  # fmt: skip
    chosen = [index for step in result.selected for index in step]
    raw = [record.raw for record in task.records]
    flags = {
        "wrong": sum(bool(raw[i].get("wrong")) for i in chosen) / len(chosen),
        "distinct": len({raw[i].get("origin") for i in chosen}) / len(chosen),
    }
    if "wanted" in raw[0]:
        flags["wanted"] = sum(raw[i]["wanted"] for i in chosen) / len(chosen)
    return given.costed(result), flags


def read(cell: Cell, block: dict[str, Any], *, shared: Path, folder: Path) -> tuple[Task, Source]:
    """The task; what is set aside for policies that need it are records beyond those of training."""
    train, heldout, aside = conditions.write(
        cell.task, cell.condition, data=shared / "data", folder=folder, train=block["train"], heldout=block["heldout"],
        seed=block["data_seed"], weak=model_of(block["weak"], shared) if "weak" in block else None,
    )  # fmt: skip
    source = Source(
        model=model_of(block["model"], shared),
        data=train, eval_data=heldout, template="{prompt}{completion}", max_length=block["max_length"],
        target=conditions.write_target(cell.task, data=shared / "data", folder=folder, seed=block["data_seed"]),
    )  # fmt: skip
    task = prepare(source, seed=cell.seed)
    beyond = prepare(replace(source, data=aside), seed=cell.seed).train if aside.stat().st_size else []
    return replace(task, aside=beyond), source


def model_of(name: str | Path, shared: Path) -> Path:
    """The folder of a model under `shared`, or of one that `uds` knows by its name, such as smollm2."""
    folder = shared / "models" / name  # `name` may be an absolute path
    return folder if folder.is_dir() else locate(str(name))


def with_tokens(policy: str, keep: float, train: Sequence[Example], batch_size: int) -> str:
    """The policy with a budget of tokens a step: those of a random fraction `keep` of the samples.

    So all policies take as many steps, from the same candidates, and train on as many tokens in each.
    """
    if policy == "full":
        return policy
    trained = sum(label != IGNORE for example in train for label in example["labels"][1:])
    tokens = round(keep * batch_size * trained / len(train))
    return f"{policy}{',' if ':' in policy else ':'}tokens={tokens}"


def line(cell: Cell, result: RunResult, flags: dict[str, float]) -> dict[str, Any]:
    """What is kept of a run."""
    return {
        **cell._asdict(),
        "loss": result.evaluations[-1].loss,
        "accuracy": result.evaluations[-1].accuracy,
        "exact_match": result.evaluations[-1].exact_match,
        "steps": result.steps,
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
    return {Cell(**{name: row[name] for name in Cell._fields if name in row}) for row in rows}


def wanted(options: argparse.Namespace) -> list[tuple[Cell, dict[str, Any]]]:
    """The runs, in the order of the blocks, each with what holds in its block."""
    found: dict[Cell, dict[str, Any]] = {}
    for name, block in blocks(options.grid).items():
        if options.block is None or name in options.block:
            model = options.model.resolve() if options.model else block["model"]
            for cell in cells(block):
                if options.task is None or cell.task in options.task:
                    found.setdefault(cell, {**block, "model": model})
    part, parts = map(int, options.part.split("/"))
    return list(found.items())[part - 1 :: parts]


def main() -> None:
    """Run what is missing."""
    options = parse()
    if not (options.shared / "data").is_dir():
        sys.exit(
            f"no folder {options.shared}/data: the study needs its data sets and models; name theirs with --shared"
        )
    name = options.grid.stem + (f"_{options.model.name}" if options.model else "")
    file = options.results / f"quality_{name}.jsonl"
    asked = wanted(options)
    missing = [(cell, block) for cell, block in asked if cell not in done(file)]
    print(f"{len(asked)} runs, {len(asked) - len(missing)} done")
    if options.dry_run:
        print(*(cell for cell, _ in missing), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, (cell, block) in enumerate(missing, 1):
            torch.set_num_threads(block["threads"])
            began = time.perf_counter()
            files = Path(folder) / f"{block['train']}-{block['heldout']}"
            row = line(cell, *one(cell, block, shared=options.shared, folder=files))
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(
                f"{number}/{len(missing)} {tuple(cell)}: {row['loss']:.4f}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
