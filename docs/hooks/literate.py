"""Pages from scripts: prose in comments after `# %%`, code below it, and the recorded output of the code.

python docs/hooks/literate.py NAMES    # runs docs/tutorials/NAME.py, or all, and records the output in NAME.txt

A script may name its launcher in a line `# started by: torchrun --nproc-per-node=2`; the output of rank 0 is recorded.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

TUTORIALS = Path(__file__).parents[1] / "tutorials"
CELL = "# %%"


class Cell(NamedTuple):
    """A piece of a script."""

    prose: str
    code: str
    line: int
    """Where the code begins, from 1."""


def cells(script: str) -> list[Cell]:
    """Return the cells of a script, in order, without the text before the first mark."""
    found, line = [], 1
    for number, part in enumerate(re.split(rf"^{CELL}\n", script, flags=re.MULTILINE)):
        lines = part.splitlines()
        comments = next((i for i, text in enumerate(lines) if not text.startswith("#")), len(lines))
        prose = "\n".join(text.removeprefix("#").removeprefix(" ") for text in lines[:comments])
        if number:
            found.append(Cell(prose.strip(), "\n".join(lines[comments:]).strip("\n"), line + _skipped(lines, comments)))
        line += len(lines) + 1
    return found


def page(script: Path) -> str:
    """Return the script as Markdown, with its recorded output."""
    said = kept(script)
    parts = []
    for number, cell in enumerate(cells(script.read_text(encoding="utf-8"))):
        parts.append(cell.prose)
        if cell.code:
            parts.append(f"```python\n{cell.code}\n```")
        if number in said:
            parts.append(f"```{{.text .said}}\n{said[number]}\n```")
    return "\n\n".join(filter(None, parts))


def kept(script: Path) -> dict[int, str]:
    """Return the recorded output: number of a cell -> text."""
    file = script.with_suffix(".txt")
    if not file.exists():
        return {}
    parts = re.split(rf"^{CELL} (\d+)\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {int(number): text.rstrip("\n") for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def run(script: Path, *, limit: float = 300) -> str:
    """Run a script with its launcher, in new processes; return its output in the form that `kept` reads."""
    started = re.search(r"^# started by: (.*)$", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    launcher = started[1].replace("torchrun", "-m torch.distributed.run").split() if started else []
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory() as folder:  # for what trainers leave behind
        done = subprocess.run(
            [sys.executable, *launcher, __file__, "--here", str(script)],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            env=os.environ | quiet,
            cwd=folder,
        )
    if done.returncode:
        msg = f"{script.name} failed:\n{done.stderr[-4000:]}"
        raise RuntimeError(msg)
    return done.stdout


def run_here(script: Path) -> str:
    """Run a script cell by cell in this process, as its main module."""
    sys.path.insert(0, str(script.parent))
    names, printed = {"__name__": "__main__", "__file__": str(script)}, []
    for number, cell in enumerate(cells(script.read_text(encoding="utf-8"))):
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            exec(compile("\n" * (cell.line - 1) + cell.code, str(script), "exec"), names)
        if stream.getvalue().strip():
            printed.append(f"{CELL} {number}\n{stream.getvalue().rstrip()}\n")
    return "".join(printed)


def _skipped(lines: list[str], comments: int) -> int:
    """Lines of a cell before its code: the mark, the comments and what is blank."""
    blank = next((i for i, text in enumerate(lines[comments:]) if text.strip()), 0)
    return comments + blank


def main(arguments: list[str]) -> None:
    """See the top of this file."""
    if arguments[:1] == ["--here"]:
        printed = run_here(Path(arguments[1]))
        if os.environ.get("RANK", "0") == "0":
            sys.stdout.write(printed)
        sys.stdout.flush()
        os._exit(0)  # threads of gloo that still hold tensors abort an interpreter that ends, now and then
    every = sorted(file.stem for file in TUTORIALS.glob("*.py") if CELL in file.read_text(encoding="utf-8"))
    for name in arguments or every:
        script = TUTORIALS / f"{name}.py"
        script.with_suffix(".txt").write_text(run(script), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
