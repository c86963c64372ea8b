"""`uds tune`: better options for a policy, found by short runs."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

import functools
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from ..console import options
from ..console.config_file import FILE, continued, loaded, resolved, unchanged, write
from ..console.options import Json, Output, Overwrite, Seed, grouped, option, output
from ..console.terminal import bars, console, hint_at_allocator, telling
from ..data.source import Source
from ..errors import Interrupted, LabError
from ..locks import locked_folder
from ..training.settings import Settings

if TYPE_CHECKING:
    from ..training.task import Task
    from .halving import Halving, Outcome
    from .search_space import Space
    from .trials import Trials

__all__ = ["tune"]

_FREE = ("threads", "search", "trials", "rungs", "reduction", "seeds")  # may change on resume: finished runs stay valid

_search = functools.partial(option, panel="Search")


@grouped(
    source=options.without(options.source, "choices_field"),
    settings=options.without(options.settings, "budget", "eval_every", "metrics", "answer_tokens"),
)
def tune(
    *,
    context: typer.Context,
    policy: Annotated[
        str, _search("The default policy, with options that are not searched: uds, or uds:dim=256.")
    ] = "uds",
    search: Annotated[
        str | None,
        _search(
            "name=[1,2,3] or name=low..high, :log after it for ratios; commas between. Options of the policy, and "
            "keep, learning_rate, batch_size.",
            show_default="alpha, keep, length and memory",
        ),
    ] = None,
    budget: Annotated[
        str, _search("What a full run trains on: samples or tokens, =N, or what random selection uses in --steps.")
    ] = "samples",
    trials: Annotated[int, _search("Configurations in the shortest runs.")] = 18,
    reduction: Annotated[
        int, _search("After each rung, one of this many continues, in runs this many times as long.")
    ] = 3,
    rungs: Annotated[int, _search("Lengths of runs; the last is the full budget.")] = 3,
    seeds: Annotated[int, _search("For the finalists and the default.")] = 3,
    source: Source,
    settings: Settings,
    seed: Seed = 0,
    config: Annotated[  # noqa: ARG001 - its callback takes it
        Path | None, output("YAML of these options, which the command line overrides.", callback=loaded, is_eager=True)
    ] = None,
    resume: Annotated[
        Path | None,
        output("Resume in this folder; finished runs are not repeated.", callback=continued, is_eager=True),
    ] = None,
    output: Output = Path("uds-tune"),
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    r"""Search better options for a policy by successive halving over short runs, measured by the held-out loss.

    All runs train on equally many samples or tokens. The finalists and the default run again with new seeds, which
    shows whether a difference is more than noise. Writes best.yaml for uds train, surface.html and tune.json.

    Examples
    --------
    uds tune --model MODEL --data train.jsonl --steps 200
    uds tune --model MODEL --data train.jsonl --steps 200 \
        --search "weight=0..4,memory=64..4096:log"
    uds train --config uds-tune/best.yaml
    """
    from .halving import Halving
    from .results import BEST, PICTURE, describe, save
    from .trials import Trials

    halving = Halving(trials=trials, reduction=reduction, rungs=rungs, seeds=seeds, seed=seed)
    settings = replace(settings, budget=budget)
    space = _space(search, policy, settings)
    with telling(machine=json) as tell, locked_folder(output):
        if resume is not None:
            unchanged(context, resume, free=_FREE)
        runs = Trials(_task(source, seed), policy, settings, output / "runs", seed, source.fingerprints())
        hint_at_allocator()
        runs.check(halving.share(0))
        if resume is None:
            _claim(output, overwrite=overwrite)
        write(resolved(context), output / FILE, note="uds tune --config THIS_FILE --output ANOTHER_FOLDER")
        outcome = _searched(runs, space, halving, output)
        asked = {"values": resolved(context), "command": shlex.join(["uds", *sys.argv[1:]])}
        results = describe(outcome, trials=runs, space=space, halving=halving, **asked)
        save(results, output, known=_options_of(context, "train"))
        console.print(outcome.verdict, highlight=False, markup=False)
        console.print(
            f"Best: {output / BEST}",
            f"Picture: {output / PICTURE}",
            sep="\n",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        tell({name: results[name] for name in ("verdict", "distinguishable", "best", "noise", "finalists")})


def _options_of(context: typer.Context, command: str) -> set[str]:
    """Return the options of another command, from the command line that both belong to."""
    group = context.find_root().command
    assert isinstance(group, TyperGroup)
    return {str(parameter.name) for parameter in group.commands[command].params}


def _space(text: str | None, policy: str, settings: Settings) -> "Space":
    from ..policy_spec import make_policy
    from ..training.budget import RunBudget
    from .search_space import default, read

    make_policy(policy, keep=settings.keep, seed=0)
    space = read(text or default(policy), policy=policy, settings=settings)
    if RunBudget.parse(settings.budget)[0] == "candidates" and "keep" in space:
        msg = (
            "`budget` candidates would let configurations that keep more train on more: use samples or tokens, or do "
            "not search keep"
        )
        raise LabError(msg)
    return space


def _task(source: Source, seed: int) -> "Task":
    from ..training.task import prepare

    task = prepare(source, seed=seed)
    if not task.heldout:
        msg = "`holdout` must be more than 0: configurations are compared by the held-out loss"
        raise LabError(msg)
    task.load_model()
    console.print(task.words(), highlight=False, markup=False)
    return task


def _claim(folder: Path, *, overwrite: bool) -> None:
    from ..storage import claim

    begun = any((folder / "runs").glob("*.json"))
    claim(folder, overwrite=overwrite, leftovers=() if begun else (FILE, "runs", "optuna.jsonl", "optuna.jsonl.lock"))
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "runs").mkdir()


def _searched(runs: "Trials", space: "Space", halving: "Halving", folder: Path) -> "Outcome":
    """Run the search, with a bar for each rung."""
    from .halving import search

    try:
        with bars() as shown:
            rows = [
                shown.add_task(_rung(runs, halving, rung), total=halving.runs(rung), start=False)
                for rung in range(halving.rungs)
            ]

            def progress(rung: int, done: float) -> None:
                shown.start_task(rows[rung])
                shown.update(rows[rung], completed=done)

            return search(runs, space, halving, storage=folder / "optuna.jsonl", progress=progress)
    except KeyboardInterrupt:
        finished = len(list((folder / "runs").glob("*.json")))
        msg = f"The {finished} finished runs are saved. Resume with: uds tune --resume {folder}"
        raise Interrupted(msg) from None


def _rung(runs: "Trials", halving: "Halving", rung: int) -> str:
    return f"runs of {halving.share(rung) * runs.budget.amount:,.0f} {runs.budget.kind}"
