"""Terminal output of commands: one console, and progress bars."""

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

__all__ = ["bar", "bars", "console", "counted", "hint_at_allocator", "rated", "telling"]

console = Console()


def hint_at_allocator() -> None:
    """Print how to make training faster, where `allocator_hint` has something to say."""
    from ..system import allocator_hint  # imports PyTorch

    if hint := allocator_hint():
        Console(stderr=True).print(hint, soft_wrap=True, highlight=False)


class _Bars(Progress):
    """Progress bars that appear with the first progress, so that none stands above an error of the start."""

    def __enter__(self) -> _Bars:
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        if not self.live.is_started:
            self.start()
        super().update(*args, **kwargs)

    def stop(self) -> None:
        if self.live.is_started:
            super().stop()


def bars() -> Progress:
    """Return progress bars, one per task; they appear with the first progress."""
    return _Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


@contextmanager
def bar(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Show one bar; call the function with the number done."""
    with bars() as shown:
        row = shown.add_task(description, total=total)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def counted(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; call the function with the number done and the total."""
    with bars() as shown:
        row = shown.add_task(description, total=None)
        yield lambda done, total: shown.update(row, completed=done, total=total)


@contextmanager
def rated(description: str, *, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show one bar with its rate, in `unit` per second, and the time left; it starts at `done`."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with _Bars(*columns, console=console) as shown:
        row = shown.add_task(description, total=total, completed=done, unit=unit)
        yield lambda done: shown.update(row, completed=done)


@contextmanager
def telling(*, machine: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Separate output for people and programs: the function prints a JSON object on stdout if `machine`, else nothing.

    If `machine` is true, text for people goes to stderr inside the block.
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
