"""`uds profile`: the cost of selection on this machine, and whether it can pay."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

from typing import TYPE_CHECKING, Annotated, Any

from ..console import options
from ..console.options import Json, Seed, grouped, option
from ..console.terminal import bar, console, hint_at_allocator, telling
from ..data.source import Source
from ..training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cost_model import Prediction
    from .measure import PeakMemory
    from .validate import Checked

__all__ = ["profile"]


def _profile(text: str, /, *names: str, **more: Any) -> Any:
    return option(text, *names, panel="Profile", **more)


_UNUSED = ("keep", "batch_size", "steps", "epochs", "budget", "eval_every", "metrics", "answer_tokens")


@grouped(
    source=options.without(options.source, "eval_data", "target", "eval_limit", "holdout", "choices_field"),
    settings=options.without(options.settings, *_UNUSED),
)
def profile(
    *,
    policy: Annotated[str, _profile("Policy to measure, such as uds or uds:frobenius=1.")] = "uds",
    candidates: Annotated[list[int], _profile("Candidates a step; give it several times.")] = [8, 16, 32],  # noqa: B006 - typer copies it
    repeats: Annotated[int, _profile("How often each shape is measured, after a warm-up.", min=1)] = 5,
    check: Annotated[bool, _profile("Also train briefly, and compare with the prediction.", "--check")] = False,
    check_steps: Annotated[int, _profile("Steps of each of the nine runs of --check.", min=1)] = 8,
    source: Source,
    settings: Settings,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    r"""Measure the cost of each part of a training step here, and say whether selection can save time.

    Measures forward, backward, scoring, optimizer and peak memory on batches of your own data. From them it computes
    the cost of a step that keeps 1/8, 1/4 or 1/2 of its candidates, relative to a step on all of them and to one on as
    many random samples. Whether the selected samples train a better model, `uds compare` measures.

    Examples
    --------
    uds profile --model MODEL --data train.jsonl
    uds profile --model MODEL --data train.jsonl --lora --check \
        --candidates 16 --candidates 64
    """
    from dataclasses import asdict, replace

    from ..models import quiet
    from ..system import threads
    from ..training.task import prepare
    from .cost_model import advise
    from .measure import Phases
    from .validate import ROUNDS
    from .validate import check as compared

    with telling(machine=json) as tell, threads(settings.threads), quiet():
        task = prepare(replace(source, holdout=0.0), seed=seed)
        console.print(task.words(), highlight=False, markup=False)
        hint_at_allocator()
        phases = Phases(task, settings, policy=policy, seed=seed)
        with bar("measuring", total=repeats + 1) as progress:
            predictions = phases.predict(candidates, repeats=repeats, progress=progress)
        advice = advise(predictions)
        console.print(*_tables(predictions, phases.memory), sep="\n")
        console.print(_run_peaks(predictions), advice.words, sep="\n")
        checked: list[Checked] = []
        if check:
            (taken,) = [p for p in predictions if (p.candidates, p.keep) == (advice.candidates, advice.keep)]
            with bar("checking on real runs", total=3 * ROUNDS) as progress:
                checked = compared(
                    task, taken, policy=policy, settings=settings, steps=check_steps, seed=seed, progress=progress
                )
            console.print(_checked(checked))
        tell(
            {
                "predictions": [
                    {**asdict(p), "of_full": p.of_full, "of_random": p.of_random, "scoring_share": p.scoring_share}
                    for p in predictions
                ],
                "memory": [memory._asdict() for memory in phases.memory],
                "advice": asdict(advice),
                "check": [{**asdict(one), "error": one.error} for one in checked],
                "device": str(phases.device),
            }
        )


def _tables(predictions: "Sequence[Prediction]", memory: "Sequence[PeakMemory]") -> list[Any]:
    from rich.table import Table

    seconds = Table(title="A training step, milliseconds", title_justify="left")
    seconds.caption = (
        "vs all: cost as a multiple of a step that trains on all candidates; below 1 saves time. H: as a multiple of a "
        "step on as many random samples, which scores nothing."
    )
    seconds.caption_justify = "left"
    for name in (
        "candi-\ndates",
        "kept",
        "scor-\ning",
        "for-\nward",
        "back-\nward",
        "rest",
        "step",
        "vs\nall",
        "H",
    ):
        seconds.add_column(name, justify="right")
    known: set[int] = set()
    for p in predictions:
        if p.candidates not in known:
            known.add(p.candidates)
            seconds.add_section()
            seconds.add_row(str(p.candidates), "all", "", *_cells(p.full), "1", "")
        choosing = f"{1e3 * p.selecting.scoring:.1f}"
        seconds.add_row("", str(p.kept), choosing, *_cells(p.selecting), f"{p.of_full:.2f}", f"{p.of_random:.1f}")
    peaks = Table(title="Peak of memory, MiB", title_justify="left")
    for name in ("phase", "samples", "MiB"):
        peaks.add_column(name, justify="left" if name == "phase" else "right")
    for phase, samples, held in sorted(memory):
        peaks.add_row(phase, str(samples), _mebibytes(held))
    return [seconds, peaks]


def _run_peaks(predictions: "Sequence[Prediction]") -> Any:
    from rich.table import Table

    table = Table(title="Predicted peak of a run, MiB", title_justify="left")
    for name in ("candi-\ndates", "kept", "MiB"):
        table.add_column(name, justify="right")
    known: set[int] = set()
    for p in predictions:
        if p.candidates not in known:
            known.add(p.candidates)
            table.add_section()
            table.add_row(str(p.candidates), "all", _mebibytes(p.full_peak))
        table.add_row("", str(p.kept), _mebibytes(p.peak))
    return table


def _mebibytes(number: "int | None") -> str:
    return "unknown" if number is None else f"{number / 2**20:,.0f}"


def _cells(step: Any) -> list[str]:
    parts = (step.forward, step.backward, step.collate + step.update, step.total)
    return [f"{1e3 * part:.1f}" for part in parts]


def _checked(checked: "Sequence[Checked]") -> Any:
    from rich.table import Table

    table = Table(title="Seconds a step, predicted and in a real run", title_justify="left")
    for name in ("policy", "predicted", "measured", "off by"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for one in checked:
        table.add_row(one.policy, f"{one.predicted:.4f}", f"{one.measured:.4f}", f"{one.error:+.0%}")
    return table
