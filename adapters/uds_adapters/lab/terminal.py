"""What people see of a command while it runs: one console, and bars for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["bar", "bars", "console"]

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
