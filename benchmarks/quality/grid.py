"""Declared grids: YAML that says, before it is run, which trainings are to be compared.

A grid has `blocks`, each with a question, and what differs between its runs: `tasks` (each with its conditions),
`keep`, `seeds`, `policies`, `equal`. What stands outside the blocks holds for all, and a block may say otherwise. A
grid of one block may leave `blocks` away. A run that two blocks ask for is made once. `metrics` are measured where a
task has no choices; where it has them, accuracy among them is, unless `accuracy` is false. `defaults` are options of
policies that the grid's names leave out: what was the default when it was run. `weak` is the model that writes
answers in the condition of that name.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["EQUAL", "Cell", "blocks", "cells", "spelled"]

EQUAL = ("tokens", "samples", "seconds")
"""What all runs of a block spend alike: `tokens` or `samples` trained on in each step, or `seconds` in all."""


class Cell(NamedTuple):
    """One run."""

    task: str
    condition: str
    keep: float
    seed: int
    policy: str
    equal: str = "tokens"

    @property
    def place(self) -> tuple[str, str, float, str]:
        """What it shares with the runs that it is compared with."""
        return self.task, self.condition, self.keep, self.equal


def blocks(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> what holds in the block."""
    grid = yaml.safe_load(file.read_text(encoding="utf-8"))
    shared = {name: value for name, value in grid.items() if name != "blocks"}
    found = grid.get("blocks", {file.stem: {}})
    return {name: {"equal": "samples", **shared, **block} for name, block in found.items()}


def cells(block: dict[str, Any]) -> Iterator[Cell]:
    """Its runs, seed by seed, so that an unfinished block has whole seeds; `full` does not depend on the share."""
    places = [(task, condition) for task, conditions in block["tasks"].items() for condition in conditions]
    for seed, (task, condition), keep in itertools.product(block["seeds"], places, block["keep"]):
        for policy in block["policies"]:
            if policy != "full" or keep == block["keep"][0]:
                yield Cell(task, condition, keep, seed, policy, block["equal"])


def spelled(policy: str, defaults: Mapping[str, Mapping[str, Any]]) -> str:
    """`policy` with those `defaults` of its name that it does not give itself."""
    name, _, given = policy.partition(":")
    options = given.split(",") if given else []
    known = {option.partition("=")[0] for option in options}
    options += [f"{option}={value}" for option, value in defaults.get(name, {}).items() if option not in known]
    return f"{name}:{','.join(options)}" if options else name
