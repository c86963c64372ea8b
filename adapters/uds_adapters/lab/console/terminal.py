"""What people see of a command while it runs: one console, and bars for what takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .. import storage

__all__ = ["bar", "bars", "console", "counted", "rated", "telling"]

console = Console()


def bars() -> Progress:
    """Bars that stand below each other, one a task."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


@contextmanager
def bar(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """One bar; the function is told how much is done."""
    with bars() as shown:
        row = shown.add_task(description, total=total)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def counted(description: str) -> Iterator[Callable[[int, int], None]]:
    """One bar; the function is told how much is done, and of how much."""
    with bars() as shown:
        row = shown.add_task(description, total=None)
        yield lambda done, total: shown.update(row, completed=done, total=total)


@contextmanager
def rated(description: str, *, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """One bar with its rate, in `unit` a second, and the time that is left; `done` of it was done before."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console) as shown:
        row = shown.add_task(description, total=total, completed=done, unit=unit)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def telling(*, machine: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Who is told what, for `--json`: the function prints an object on stdout for machines, or does nothing.

    Where `machine` is true, what people read goes to stderr while this is entered.
    """
    before, console.stderr = console.stderr, machine
    try:
        yield _print if machine else lambda _: None
    finally:
        console.stderr = before


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s", style="progress.data.speed")


def _print(values: Mapping[str, Any]) -> None:
    sys.stdout.write(storage.as_json(values) + "\n")
