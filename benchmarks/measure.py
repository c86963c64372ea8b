"""Seconds, peak memory and surroundings of a benchmark."""

import argparse
import multiprocessing
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import torch

import uds_core

RESULTS = Path(__file__).parent / "results"


def results(benchmark: str, device: str) -> Path:
    """The file of its committed figures; those of a GPU have one of their own."""
    kind = torch.device(device).type
    return RESULTS / (f"{benchmark}.json" if kind == "cpu" else f"{benchmark}_{kind}.json")


def seconds(run: Callable[[], Any], *, repeat: int = 5) -> float:
    """Best of `repeat` after one warm-up, the device synchronised."""
    once(run)
    return min(once(run) for _ in range(repeat))


def in_turn(runs: Mapping[Any, Callable[[], Any]], *, repeat: int, shared: bool = False) -> dict[Any, float]:
    """Seconds of each, best of `repeat` turns after one that warms up: what slows the machine down slows all.

    `shared`: those of this process's CPU time, on a machine that others use.
    """
    found = dict.fromkeys(runs, float("inf"))
    for turn in range(repeat + 1):
        for name, run in runs.items():
            seconds = once(run, shared=shared)
            found[name] = min(found[name], seconds) if turn else found[name]
    return found


def data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a benchmark that reads a model and data."""
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prompt-field")
    parser.add_argument("--completion-field")


def once(run: Callable[[], Any], *, shared: bool = False) -> float:
    """Seconds of one call, the device synchronised; `shared`: of CPU time."""
    clock = time.process_time if shared else time.perf_counter
    began = clock()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - began


def peak_bytes(prepare: Callable[[], Callable[[], Any]], *, device: str = "cpu") -> int:
    """Extra memory at the peak of what `prepare()` returns; what `prepare` itself allocates does not count.

    Of a GPU, what PyTorch has allocated; else what is resident, in a process of its own (Linux).
    """
    if torch.device(device).type == "cuda":
        return _gpu_peak(prepare())
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure_peak, args=(prepare, theirs))
    process.start()
    extra = ours.recv()
    process.join()
    return extra


def _gpu_peak(run: Callable[[], Any]) -> int:
    run()  # libraries take their workspaces in the first call, and keep them
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _measure_peak(prepare: Callable[[], Callable[[], Any]], pipe: Any) -> None:
    run = prepare()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak to what is resident now
    before = _status("VmRSS")
    run()
    pipe.send(_status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def surroundings(device: str = "cpu") -> dict[str, Any]:
    """Device, versions and commit, to stand beside every figure."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": _cpu() if torch.device(device).type == "cpu" else torch.cuda.get_device_name(device),
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
