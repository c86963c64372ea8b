"""The `uds` command: one function a command, in `commands`, and how errors are shown."""

# No `from __future__ import annotations`: typer reads them when the command line is built. What computes is imported
# inside the commands, so that `uds --help` comes at once.

import errno
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from .compare.command import compare
from .demo.command import demo
from .errors import Interrupted, LabError
from .profile.command import profile
from .report.command import report
from .score.command import score
from .train.command import train
from .tune.command import tune

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Shows a `LabError` as one paragraph, and exits with 2, as any wrong usage does; after Ctrl-C with 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            _say(f"[bold red]Error:[/] {escape(str(error))}")
            raise typer.Exit(2) from None
        except (Interrupted, KeyboardInterrupt) as error:
            _say(f"[bold yellow]Interrupted.[/] {escape(str(error))}".rstrip())
            raise typer.Exit(130) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _say(
                f"[bold red]Error:[/] no space left on the disk for {escape(str(error.filename or 'what is written'))}"
            )
            raise typer.Exit(2) from None


def _say(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


def _help(command: Callable[..., None]) -> str:
    """The docstring: paragraphs that any width can break anew, its examples line by line."""
    text, heading, examples = (inspect.getdoc(command) or "").partition("\nExamples\n--------\n")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(paragraphs) + ("\n\n\b\nExamples:\n" + examples if heading else "")


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False)
for command in (demo, profile, compare, train, tune, score, report):
    app.command(help=_help(command))(command)


def _version(asked: bool) -> None:
    if asked:
        import uds_core

        typer.echo(uds_core.__version__)
        raise typer.Exit


@app.callback()
def about(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train on the part of each batch that teaches the most, and see what that is worth."""


def main() -> None:
    """Run the command line."""
    app()
