"""The `uds` command: options in, tables out. Nothing else in the laboratory prints."""

# No `from __future__ import annotations`: typer reads them when the command line is built. What computes is imported
# inside the commands, so that `uds --help` comes at once.

import functools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperGroup

from . import options
from .errors import LabError
from .options import grouped, option
from .settings import Settings, Source

if TYPE_CHECKING:
    from .run import RunResult
    from .task import Task

__all__ = ["app", "main"]

_training = functools.partial(option, panel="Training")
_output = functools.partial(option, panel="Output")

Seed = Annotated[int, _training("Of the candidates' order, adapters, held-out share; with --seeds, the first.")]
Seeds = Annotated[int, _training("Number of seeds, each a run for every policy.")]
Policies = Annotated[list[str], _training("Such as uds or uds:alpha=0.5,dim=256; give it several times.", "--policy")]
Output = Annotated[Path, _output("Folder for the results; new, or empty.")]
Overwrite = Annotated[bool, _output("Use the folder even if it holds files.", "--overwrite")]


class _Group(TyperGroup):
    """Shows a `LabError` as one paragraph, and exits with 2, as any wrong usage does."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(2) from None


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
console = Console()


def main() -> None:
    """Run the command line."""
    app()


@app.callback()
def about() -> None:
    """Train on the part of each batch that teaches the most, and see what that is worth."""


@app.command()
def demo(
    *,
    policies: Policies = ["full", "random", "uds"],  # noqa: B006 - typer copies it
    keep: Annotated[float, _training("Share of the candidates that is trained on, in (0, 1].")] = 0.25,
    seeds: Seeds = 2,
    seed: Seed = 0,
    steps: Annotated[int | None, _training("Optimizer steps a run.", show_default="90")] = None,
    records: Annotated[int, _training("Training records that are generated.")] = 3000,
    pretraining_steps: Annotated[int, _training("Steps of pretraining the model.")] = 300,
    output: Output = Path("uds-demo"),
    overwrite: Overwrite = False,
) -> None:
    """Compare policies on generated instructions with a small model made on the spot. Takes a few minutes."""
    from . import compare as lab
    from . import demo as show
    from .task import prepare

    settings = replace(show.SETTINGS, keep=keep, steps=show.SETTINGS.steps if steps is None else steps)
    sizes = show.Sizes(train=records, pretraining_steps=pretraining_steps)
    lab.check(policies, seeds=range(seed, seed + seeds), settings=settings)
    lab.claim(output, overwrite=overwrite)
    console.print(
        f"Instructions with small answers: arithmetic, units, string edits. {sizes.train} to train on, of which "
        f"{sizes.repeated:.0%} nearly repeat another and {sizes.wrong:.0%} have a wrong answer."
    )
    with _bar("pretraining a small Llama", total=pretraining_steps) as told:
        source = show.make(output, sizes=sizes, seed=seed, after_step=told)
    task = prepare(source, seed=seed)
    results = _runs(task, policies=policies, seeds=range(seed, seed + seeds), settings=settings, output=output)
    _finish(task, results, source=source, settings=settings, output=output, flags=show.flags(task))


@app.command()
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
    task = _task(
        source, settings, policies=policies, seeds=range(seed, seed + seeds), output=output, overwrite=overwrite
    )
    results = _runs(task, policies=policies, seeds=range(seed, seed + seeds), settings=settings, output=output)
    _finish(task, results, source=source, settings=settings, output=output)


@app.command()
@grouped(source=options.source, settings=options.settings)
def train(
    *,
    source: Source,
    settings: Settings,
    policy: Annotated[str, _training("The policy.")] = "uds",
    seed: Seed = 0,
    output: Output = Path("uds-train"),
    overwrite: Overwrite = False,
) -> None:
    """Fine-tune a model with one policy and save it, with --lora its adapters. --holdout 0 trains on all records."""
    task = _task(source, settings, policies=[policy], seeds=[seed], output=output, overwrite=overwrite)
    results = _runs(task, policies=[policy], seeds=[seed], settings=settings, output=output, save_model=True)
    _finish(task, results, source=source, settings=settings, output=output)
    console.print(
        f"The {'adapters' if settings.lora_rank else 'model'} and the tokenizer are in {output}", soft_wrap=True
    )


def _task(
    source: Source, settings: Settings, *, policies: Sequence[str], seeds: Sequence[int], output: Path, overwrite: bool
) -> "Task":
    """Check everything that can be wrong before the first run, and read the task."""
    from . import compare as lab
    from .task import prepare

    lab.check(policies, seeds=seeds, settings=settings)
    task = prepare(source, seed=seeds[0])
    settings.total_steps(len(task.train))
    lab.claim(output, overwrite=overwrite)
    said = f"{len(task.train)} training examples, {len(task.heldout)} held out"
    if task.left_out:
        said += f"; {task.left_out} left out, whose prompt alone fills {source.max_length} tokens"
    console.print(said + ".")
    return task


def _runs(
    task: "Task",
    *,
    policies: Sequence[str],
    seeds: Sequence[int],
    settings: Settings,
    output: Path,
    save_model: bool = False,
) -> "list[RunResult]":
    """All runs, with a bar for each."""
    from .compare import compare as run_all

    steps = settings.total_steps(len(task.train))
    with _progress() as bars:
        rows = {(p, s): bars.add_task(f"{p}, seed {s}", total=steps, start=False) for s in seeds for p in policies}

        def told(policy: str, seed: int, step: int) -> None:
            bars.start_task(rows[policy, seed])
            bars.update(rows[policy, seed], completed=step)

        return run_all(
            task,
            policies=policies,
            seeds=seeds,
            settings=settings,
            folder=output,
            progress=told,
            save_model=save_model,
        )


def _finish(
    task: "Task",
    results: "Sequence[RunResult]",
    *,
    source: Source,
    settings: Settings,
    output: Path,
    flags: Any = None,
) -> None:
    """Write the folder; show the table, a sentence on it, and where the report is."""
    from .compare import describe, save
    from .summary import summarise, verdict
    from .tables import tables

    command = shlex.join(["uds", *sys.argv[1:]])
    report = save(describe(task, results, source=source, settings=settings, command=command, flags=flags), output)
    summaries = summarise(results, flags=flags)
    console.print(*tables(summaries), verdict(summaries), sep="\n")
    console.print(f"Report: {report}", soft_wrap=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


@contextmanager
def _bar(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
    with _progress() as bars:
        row = bars.add_task(description, total=total)
        yield lambda done: bars.update(row, completed=done)
