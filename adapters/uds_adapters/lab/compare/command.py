"""`uds compare`: several policies and seeds on one model and data."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ..console import options
from ..console.options import (
    MODEL,
    Jobs,
    Json,
    Output,
    Overwrite,
    Seed,
    Seeds,
    grouped,
    located,
    policy_names,
    training,
)
from ..console.terminal import hint_at_allocator, telling
from ..data.source import Source
from ..locks import locked_folder
from ..training.settings import Settings

__all__ = ["compare"]

_POLICIES = ("full", "random", "fresh", "uds")
_TARGETED = "targeted"


@grouped(source=options.source, settings=options.settings)
def compare(
    *,
    policies: Annotated[
        list[str] | None, policy_names(show_default=f"{', '.join(_POLICIES)}; with --target {_TARGETED} for fresh")
    ] = None,
    source: Source,
    settings: Settings,
    seeds: Seeds = 1,
    seed: Seed = 0,
    aside: Annotated[
        float | None,
        training(
            "Fraction of the training records that no policy may choose, for greats (validation samples) and rholoss "
            "(training its reference).",
            show_default="0.1 with one of them, else 0",
        ),
    ] = None,
    reference_model: Annotated[
        Path | None,
        training(
            "Reference model of rholoss, named as --model is.",
            show_default="the model, trained on the records set aside",
            **MODEL,
        ),
    ] = None,
    jobs: Jobs = None,
    output: Output = Path("uds-compare"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    r"""Fine-tune one model with several policies and seeds; write results.json and report.html.

    Each policy chooses from the same candidates, and its cost is measured. The verdict says which policies are
    better than random selection, by how much, at which equal budget, and what to train with. After Ctrl-C the
    same command resumes: finished runs are not repeated.

    Examples
    --------
    uds compare --model MODEL --data train.jsonl --seeds 3 \
        --policy random --policy uds
    uds compare --model MODEL --data gsm8k.jsonl --budget tokens --lora \
        --prompt-field question --completion-field answer --metric exact-match \
        --policy random --policy longest --policy uds:alpha=0.5
    """
    from ..comparison.experiment import check
    from ..comparison.plan import Plan
    from ..comparison.run_store import Runs
    from ..comparison.session import finish, said, side_by_side, train_all
    from ..training.policy_inputs import check_models, set_aside
    from ..training.task import prepare

    with telling(machine=json) as tell, locked_folder(output):
        policies = policies or [_TARGETED if name == "fresh" and source.target else name for name in _POLICIES]
        every = range(seed, seed + seeds)
        reference = None if reference_model is None else located(reference_model)
        settings, number = side_by_side(settings, jobs)
        check(policies, seeds=every, settings=settings, target=source.target)
        share = set_aside(policies, fraction=aside, reference_model=reference)
        plan = Plan(source=replace(source, aside=share, reference_model=reference), settings=settings, seed=seed)
        task = prepare(plan.source, seed=seed)
        settings.total_steps(len(task.train))
        task.measure(settings)
        check_models(task, policies, source=plan.source)
        runs = Runs(output)
        runs.claim(plan, overwrite=overwrite)
        hint_at_allocator()
        said(task)
        results = train_all(task, policies=policies, seeds=every, plan=plan, runs=runs, jobs=number)
        tell(finish(task, results, plan=plan, runs=runs))
