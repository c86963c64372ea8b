"""Seconds, peak memory and surroundings of a benchmark."""

import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import torch

import uds_core


def seconds(run: Callable[[], Any], *, repeat: int = 5) -> float:
    """Best of `repeat` after one warm-up, the device synchronised."""
    best = float("inf")
    for turn in range(repeat + 1):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - began
        best = min(best, took) if turn else best
    return best


def peak_bytes(prepare: Callable[[], Callable[[], Any]]) -> int:
    """Extra resident memory at the peak of what `prepare()` returns, in a process of its own (Linux).

    What `prepare` itself allocates does not count.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure_peak, args=(prepare, theirs))
    process.start()
    extra = ours.recv()
    process.join()
    return extra


def _measure_peak(prepare: Callable[[], Callable[[], Any]], pipe: Any) -> None:
    run = prepare()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak to what is resident now
    before = _status("VmRSS")
    run()
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def surroundings() -> dict[str, Any]:
    """Device, versions and commit, to stand beside every figure."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "array_api_compat": array_api_compat.__version__,
        "uds_core": uds_core.__version__,
        "commit": commit.stdout.strip() or "unknown",
        "malloc": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("MALLOC_")},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
