"""Worker process that trains runs on request: ``python -m uds_adapters.lab.comparison.worker FOLDER``.

A line of JSON on stdin for each task, ``{"prepare": [policy, ...]}`` or ``{"policy": ..., "seed": ...}``; on stdout
lines that say how far it is, ``{"step": n}``, and ``{"done": true}`` or ``{"error": text}`` at its end. It ends with
its stdin, in the middle of a run too.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..errors import LabError, LabWarning
from ..storage import disk_full

__all__: list[str] = []


def main(folder: Path, /) -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    warnings.simplefilter("ignore", LabWarning)  # the first process has shown them
    try:
        _serve(folder, answers)
    except LabError as error:
        _say(answers, error=str(error))
    except Exception as error:
        if not disk_full(error):
            raise
        _say(answers, error=f"no space left on the disk for {folder}: make room, and run it again")


def _serve(folder: Path, answers: TextIO) -> None:
    from ..training.task import prepare
    from .run_store import Runs
    from .runner import Runner

    runs = Runs(folder)
    plan = runs.plan()
    runner = Runner(prepare(plan.source, seed=plan.seed), plan=plan, runs=runs)
    for line in _requests():
        request = json.loads(line)
        if "prepare" in request:
            runner.prepare(request["prepare"])
        else:
            runner(request["policy"], request["seed"], after_step=lambda step: _say(answers, step=step))
        _say(answers, done=True)


def _requests() -> Iterator[str]:
    """Yield lines of stdin; end the process as soon as stdin ends, in the middle of a run too.

    Whoever started it was killed then, and another command may begin to write to the folder.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


def _say(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
