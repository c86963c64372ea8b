"""The `uds` command: one function a command, in `commands`, and how errors are shown."""

# No `from __future__ import annotations`: typer reads them when the command line is built. What computes is imported
# inside the commands, so that `uds --help` comes at once.

from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from .commands.compare import compare
from .commands.demo import demo
from .commands.train import train
from .errors import LabError

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Shows a `LabError` as one paragraph, and exits with 2, as any wrong usage does."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(2) from None


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for command in (demo, compare, train):
    app.command()(command)


@app.callback()
def about() -> None:
    """Train on the part of each batch that teaches the most, and see what that is worth."""


def main() -> None:
    """Run the command line."""
    app()
