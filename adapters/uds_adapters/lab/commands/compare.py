"""`uds compare`: several policies and seeds on one model and data."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from pathlib import Path

from .. import options
from ..options import Output, Overwrite, Policies, Seed, Seeds, grouped
from ..settings import Settings, Source

__all__ = ["compare"]


@grouped(source=options.source, settings=options.settings)
def compare(
    *,
    source: Source,
    settings: Settings,
    policies: Policies = ["full", "random", "uds"],  # noqa: B006 - typer copies it
    seeds: Seeds = 1,
    seed: Seed = 0,
    output: Output = Path("uds-compare"),
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune one model with several policies and seeds; write results.json and report.html."""
    from .runs import checked, finish, train_all

    every = range(seed, seed + seeds)
    task = checked(source, settings, policies=policies, seeds=every, output=output, overwrite=overwrite)
    results = train_all(task, policies=policies, seeds=every, settings=settings, output=output)
    finish(task, results, source=source, settings=settings, output=output)
