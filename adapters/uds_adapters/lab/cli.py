"""Commands of `uds`, and how their errors are shown."""

# No `from __future__ import annotations`: typer reads them when the command line is built. Heavy packages are imported
# inside the commands, so that `uds --help` is fast.

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from .compare.command import compare
from .console.encoding import print_any_text
from .dedup.command import dedup
from .demo.command import demo
from .errors import Interrupted, LabError, LabWarning
from .profile.command import profile
from .report.command import report
from .score.command import score
from .show.command import show
from .storage import disk_full
from .train.command import train
from .tune.command import tune

__all__ = ["app", "main"]


class _Group(TyperGroup):
    """Show a `LabError` as one paragraph and exit with 2, as for wrong usage; after Ctrl-C exit with 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _warnings_shown():
                return super().invoke(ctx)
        except LabError as error:
            _say(f"[bold red]Error:[/] {escape(str(error))}")
            raise typer.Exit(2) from None
        except (Interrupted, KeyboardInterrupt) as error:
            _say(f"[bold yellow]Interrupted.[/] {escape(str(error))}".rstrip())
            raise typer.Exit(130) from None
        except Exception as error:
            if not disk_full(error):
                raise
            name = getattr(error, "filename", None) or "what is written"
            _say(f"[bold red]Error:[/] no space left on the disk for {escape(str(name))}: make room, and run it again")
            raise typer.Exit(2) from None


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Show the text of each `LabWarning` once on stderr; other warnings as before."""
    with warnings.catch_warnings():
        before, seen = warnings.showwarning, set[str]()

        def show(message: Any, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, LabWarning):
                before(message, category, *place)
            elif str(message) not in seen:
                seen.add(str(message))
                _say(f"[bold yellow]Warning:[/] {escape(str(message))}")

        warnings.simplefilter("always", LabWarning)
        warnings.showwarning = show
        yield


def _say(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


def _help(command: Callable[..., None]) -> str:
    """Return the docstring as help text: paragraphs that are wrapped, and examples that are not."""
    text, heading, examples = (inspect.getdoc(command) or "").partition("\nExamples\n--------\n")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    unwrapped = examples.replace("\n\n", "\n\n\b\n")  # which holds up to the next blank line
    return "\n\n".join(paragraphs) + ("\n\n\b\nExamples:\n" + unwrapped if heading else "")


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False)
for command in (demo, show, profile, compare, train, tune, score, dedup, report):
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
    """Fine-tune language models on selected data, and measure whether the selection pays."""


def main() -> None:
    """Run the command line."""
    print_any_text()
    app()
