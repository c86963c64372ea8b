"""`uds demo`: policies compared on generated data."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ..options import Output, Overwrite, Policies, Seed, Seeds, training
from ..terminal import bar, console

__all__ = ["demo"]


def demo(
    *,
    policies: Policies = ["full", "random", "uds"],  # noqa: B006 - typer copies it
    keep: Annotated[float, training("Share of the candidates that is trained on, in (0, 1].")] = 0.25,
    seeds: Seeds = 2,
    seed: Seed = 0,
    steps: Annotated[int | None, training("Optimizer steps a run.", show_default="90")] = None,
    records: Annotated[int, training("Training records that are generated.")] = 3000,
    pretraining_steps: Annotated[int, training("Steps of pretraining the model.")] = 300,
    output: Output = Path("uds-demo"),
    overwrite: Overwrite = False,
) -> None:
    """Compare policies on generated instructions with a small model made on the spot. Takes a few minutes."""
    from .. import compare as lab
    from .. import demo as show
    from ..task import prepare
    from .runs import finish, train_all

    settings = replace(show.SETTINGS, keep=keep, steps=show.SETTINGS.steps if steps is None else steps)
    sizes = show.Sizes(train=records, pretraining_steps=pretraining_steps)
    lab.check(policies, seeds=range(seed, seed + seeds), settings=settings)
    lab.claim(output, overwrite=overwrite)
    console.print(
        f"Instructions with small answers: arithmetic, units, string edits. {sizes.train} to train on, of which "
        f"{sizes.repeated:.0%} nearly repeat another and {sizes.wrong:.0%} have a wrong answer."
    )
    with bar("pretraining a small Llama", total=pretraining_steps) as told:
        source = show.make(output, sizes=sizes, seed=seed, after_step=told)
    task = prepare(source, seed=seed)
    results = train_all(task, policies=policies, seeds=range(seed, seed + seeds), settings=settings, output=output)
    finish(task, results, source=source, settings=settings, output=output, flags=show.flags(task))
