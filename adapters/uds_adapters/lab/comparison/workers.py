"""Worker processes that train at once, one a GPU where there are GPUs."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import LabError

__all__ = ["train"]

Told = Callable[[str, int, int], None]


def train(
    pairs: Sequence[tuple[str, int]], /, *, folder: Path, number: int, progress: Told, prepare: Sequence[str] = ()
) -> None:
    """Train all pairs of policy and seed; which process takes which makes no difference to what comes of them.

    Parameters
    ----------
    pairs
        Taken up in this order, by whichever process is free.
    folder
        Of `Runs`, claimed.
    number
        Of processes.
    progress
        Told policy, seed and how far it is.
    prepare
        Policies whose needs are made first, by one process.

    Raises
    ------
    LabError
        Where a run fails; the others are stopped, and what is finished is kept.
    """
    left: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for pair in pairs:
        left.put(pair)
    with _workers(folder, number) as workers:
        if prepare:
            workers[0].ask({"prepare": list(prepare)}, about="making what the policies need")
        with ThreadPoolExecutor(len(workers)) as pool:
            try:
                for work in as_completed([pool.submit(_work, worker, left, progress) for worker in workers]):
                    work.result()
            except BaseException:  # Ctrl-C too: the threads wait for processes
                for worker in workers:
                    worker.stop()
                raise


def _work(worker: _Worker, left: queue.SimpleQueue[tuple[str, int]], progress: Told) -> None:
    while True:
        try:
            policy, seed = left.get_nowait()
        except queue.Empty:
            return
        message = {"policy": policy, "seed": seed}
        worker.ask(
            message, about=f"{policy}, seed {seed}", progress=lambda step, p=policy, s=seed: progress(p, s, step)
        )


@contextmanager
def _workers(folder: Path, number: int) -> Iterator[list[_Worker]]:
    devices = _devices()
    workers = [_Worker(folder, devices[i % len(devices)] if devices else None) for i in range(number)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One process; see `worker`."""

    def __init__(self, folder: Path, device: str | None) -> None:
        visible = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uds_adapters.lab.comparison.worker", str(folder)],
            env={**os.environ, **visible},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, message: dict[str, Any], *, about: str, progress: Callable[[int], None] | None = None) -> None:
        """Hand over a task and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it said is read below
        for line in self._process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(answer["error"])
            if "done" in answer:
                return
            if progress is not None:
                progress(answer["step"])
        code = self._process.wait()
        msg = (
            f"{about}: its process ended with exit code {code}"
            f"{' (killed, as when memory runs out)' if code == -9 else ''}; what it said is above. Finished runs are "
            "kept: the same command goes on with the others, with fewer `--jobs` if memory is short"
        )
        raise LabError(msg)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _devices() -> list[str]:
    """What `CUDA_VISIBLE_DEVICES` calls the GPUs that are visible here."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]
