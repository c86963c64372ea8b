"""Worker process that trains runs on request: ``python -m uds_adapters.lab.comparison.worker FOLDER``.

A line of JSON on stdin for each task, ``{"prepare": [policy, ...]}`` or ``{"policy": ..., "seed": ...}``; on stdout
lines that say how far it is, ``{"step": n}``, and ``{"done": true}`` or ``{"error": text}`` at its end. It ends with
its stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from ..errors import LabError, LabWarning

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


def _serve(folder: Path, answers: TextIO) -> None:
    from ..training.task import prepare
    from .run_store import Runs
    from .runner import Runner

    runs = Runs(folder)
    plan = runs.plan()
    runner = Runner(prepare(plan.source, seed=plan.seed), plan=plan, runs=runs)
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            runner.prepare(request["prepare"])
        else:
            runner(request["policy"], request["seed"], after_step=lambda step: _say(answers, step=step))
        _say(answers, done=True)


def _say(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
