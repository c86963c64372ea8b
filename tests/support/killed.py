"""Runs that are killed where a file is touched or after some time, and what they leave on disk."""

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import tiny

import uds_core as uds

STEPS = 9
LIMIT = 8 * 12_000  # bytes of an audit: a part is full after some steps, and none is dropped for the limit
_EVENTS = {"open", "os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"}


class Kills:
    """Counts the times that this process is about to change a file below `folder`, and kills it at one of them.

    `kill`: ``("file", n)``, at the n-th of all; ``("part", n)``, at the n-th within `AuditFiles.finish_part`;
    ``("seconds", s)``, so long after `start`; None: never. With `together`, all processes of the run are killed.
    """

    def __init__(self, folder: Path, kill: tuple[str, float] | None, *, rank: int, together: bool) -> None:
        self.folder, self.kill, self.together = folder.resolve(), kill, together
        self.counts = {"file": 0, "part": 0, "seconds": 0.0}
        self.inside = False
        self.pids = folder.with_name(folder.name + "_pids")
        self.pids.mkdir(exist_ok=True)
        (self.pids / str(rank)).write_text(str(os.getpid()))
        self._watch_parts()
        sys.addaudithook(self._event)

    def start(self) -> None:
        self.began = time.monotonic()
        if self.kill is not None and self.kill[0] == "seconds":
            timer = threading.Timer(self.kill[1], self._die)
            timer.daemon = True
            timer.start()

    def end(self) -> dict[str, float]:
        self.kill = None
        return {**self.counts, "seconds": time.monotonic() - self.began}

    def _watch_parts(self) -> None:
        from uds_adapters import audit_files

        kind: Any = audit_files.AuditFiles
        finish = kind.finish_part

        def watched(files: Any, limit: int) -> None:
            self.inside = True
            finish(files, limit)
            self.inside = False

        kind.finish_part = watched

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if event == "open" and isinstance(arguments[1], str) and not set(arguments[1]) & set("wax+"):
            return
        place = Path(arguments[0])
        if event in ("os.remove", "os.rmdir") and arguments[-1] != -1:  # as `shutil.rmtree` names what it deletes
            place = Path(f"/proc/self/fd/{arguments[-1]}").resolve() / place
        if not place.absolute().is_relative_to(self.folder):
            return
        for name in ("file", "part") if self.inside else ("file",):
            self.counts[name] += 1
            if self.kill == (name, self.counts[name]):
                self._die()

    def _die(self) -> None:
        if self.kill is None:
            return
        own = os.getpid()
        others = [int(file.read_text()) for file in self.pids.iterdir()] if self.together else []
        for pid in others:
            if pid != own:
                os.kill(pid, signal.SIGKILL)
        os.kill(own, signal.SIGKILL)


def trainer(folder: Path, *, audit: str, kill: Any = None, rank: int = 0, together: bool = False) -> dict[str, float]:
    """`UDSTrainer` on one process or several, resumed where there is a checkpoint; `rank`: of the one to be killed."""
    from loops import world
    from recorded_trainer import arguments

    from uds_adapters.audit import Audit
    from uds_adapters.trainer_checkpoints import steps
    from uds_adapters.transformers import UDSTrainer

    own, size = world()
    if size == 1:
        _leave_group()
    output = folder / "run"
    output.mkdir(exist_ok=True)
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, "gradient_accumulation_steps": 2}
    kills = Kills(output, kill if own == rank else None, rank=own, together=together)
    with Audit(output / f"audit_{own}.{audit}", limit_bytes=LIMIT) as log:
        run = UDSTrainer(
            model=tiny.llama(dropout=0.1),
            args=arguments(output, max_steps=STEPS, **{**options, "per_device_train_batch_size": 8 // size}),
            train_dataset=tiny.examples(80),
            data_collator=tiny.collate,
            policy=uds.UDS(keep=0.25, memory=16, dim=16, weight=2.0),
            scope="step",
            ranks="global",
            selection={"audit": log},
        )
        kills.start()
        run.train(resume_from_checkpoint=True if steps(output) else None)
    return kills.end()


def command(folder: Path, *, arguments: list[str], kill: Any = None) -> dict[str, Any]:
    """A `uds` command, whose output folder is ``folder / "run"``."""
    _leave_group()
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "COLUMNS": "200"}
    from typer.testing import CliRunner

    from uds_adapters.lab.cli import app

    kills = Kills(folder / "run", kill, rank=0, together=False)
    kills.start()
    result = CliRunner().invoke(app, arguments)
    unexpected = [] if isinstance(result.exception, SystemExit | None) else traceback.format_exception(result.exception)
    return {**kills.end(), "code": result.exit_code, "output": "".join([result.output, *unexpected])}


def _leave_group() -> None:
    """Forget what the Trainer would make a process group of one process from."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
