"""`uds report`: the page of results that are there already, made anew, or of several folders together."""

# No `from __future__ import annotations`: typer reads them when the command line is built.

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..console.options import Json, option
from ..console.terminal import console, counted, telling
from ..errors import LabError
from ..locks import locked_file, locked_folder

__all__ = ["report"]


def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `uds compare` or `uds demo` wrote.")],
    *,
    output: Annotated[
        Path | None,
        option(
            "The page to write.", panel="Output", show_default="report.html in the folder; of several: uds-report.html"
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("Write over a file named by --output that is there.", "--overwrite", panel="Output")
    ] = False,
    json: Json = False,
) -> None:
    """Make report.html anew from results.json, or join several folders on one page. Needs no model and no GPU.

    Examples
    --------
    uds report uds-compare
    uds report small-model large-model --output both.html
    """
    from .folders import write

    page = output or (folders[0] / "report.html" if len(folders) == 1 else Path("uds-report.html"))
    ours = output is None and len(folders) == 1
    if page.exists() and not (overwrite or ours):
        msg = f"`output` {page} is there already: name another file, or replace it with `--overwrite`"
        raise LabError(msg)
    with telling(machine=json) as tell, _locked(page, folders):
        with counted("reading what was chosen") as progress:
            write(folders, page, after=progress)
        console.print(f"Report: {page}", soft_wrap=True, markup=False)
        tell({"report": str(page), "folders": [str(folder) for folder in folders], "bytes": page.stat().st_size})


@contextmanager
def _locked(page: Path, folders: Sequence[Path]) -> Iterator[None]:
    """Lock the page, and each folder of results: one that changes while it is read would be mixed with what it was."""
    with ExitStack() as stack:
        for folder in sorted({folder.resolve(): folder for folder in folders}.values()):
            if folder.is_dir() and os.access(folder, os.W_OK):  # nobody else writes where a page is only read
                stack.enter_context(locked_folder(folder))
        if page.parent.is_dir():
            stack.enter_context(locked_file(page))
        yield
