"""`uds demo`: a comparison of policies on generated data."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ..console.options import Jobs, Json, Output, Overwrite, Policies, Seed, Seeds, training
from ..console.terminal import bar, console, hint_at_allocator, telling
from ..locks import locked_folder
from ..training.settings import Settings

__all__ = ["demo"]


def demo(
    *,
    policies: Policies = ["full", "random", "uds"],  # noqa: B006 - typer copies it
    keep: Annotated[float, training("Fraction of the candidates that is trained on, in (0, 1].")] = Settings.keep,
    seeds: Seeds = 3,
    seed: Seed = 0,
    steps: Annotated[int | None, training("Optimizer steps a run.", show_default="90")] = None,
    records: Annotated[int, training("Training records that are generated.")] = 3000,
    pretraining_steps: Annotated[int, training("Steps of pretraining the model.")] = 300,
    jobs: Jobs = None,
    output: Output = Path("uds-demo"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare policies on generated instructions with a small model trained on the spot. Takes a few minutes.

    Examples
    --------
    uds demo
    uds demo --policy random --policy longest --policy uds --output longest
    """
    from ..comparison.experiment import check
    from ..comparison.plan import Plan
    from ..comparison.run_store import Runs
    from ..comparison.session import finish, side_by_side, train_all
    from ..storage import claim
    from ..training.task import prepare
    from . import scenario as show

    with telling(machine=json) as tell, locked_folder(output):
        settings = replace(show.SETTINGS, keep=keep, steps=show.SETTINGS.steps if steps is None else steps)
        settings, number = side_by_side(settings, jobs)
        every = range(seed, seed + seeds)
        sizes = show.Sizes(train=records, pretraining_steps=pretraining_steps)
        check(policies, seeds=every, settings=settings)
        hint_at_allocator()
        console.print(show.words(sizes, settings, policies, seeds=seeds), highlight=False)
        source = None if overwrite else show.made(output, sizes=sizes, seed=seed)
        fresh = source is None
        if source is None:
            claim(output, overwrite=overwrite)
            with bar("pretraining a small Llama", total=pretraining_steps) as progress:
                source = show.make(output, sizes=sizes, seed=seed, after_step=progress)
        plan, runs = Plan(source=source, settings=settings, seed=seed), Runs(output)
        runs.claim(plan, overwrite=fresh)
        task = prepare(source, seed=seed)
        results = train_all(task, policies=policies, seeds=every, plan=plan, runs=runs, jobs=number)
        tell(finish(task, results, plan=plan, runs=runs, flags=show.flags(task)))
