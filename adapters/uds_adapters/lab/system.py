"""Process settings and measurements: peak memory, threads, Ctrl-C, and the memory allocator."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Peak", "allocator_hint", "patient", "peak", "threads"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Peak memory of a computation."""

    bytes: int | None = None
    """None where the system does not report it."""


@contextlib.contextmanager
def peak(device: torch.device, /) -> Iterator[Peak]:
    """Measure the peak memory inside the block, with everything allocated before.

    On CUDA, the memory that PyTorch allocated on `device`. On the CPU under Linux, the resident memory of the process:
    an allocator may return freed memory late or never, so measure small computations before large ones.
    """
    found = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.bytes = torch.cuda.max_memory_allocated(device)
        return
    known = _reset()
    yield found
    if known:
        found.bytes = _resident_peak()


def _reset() -> bool:
    """Reset the peak of this process to its present memory; return whether that is possible."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident_peak() -> int | None:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


@contextlib.contextmanager
def threads(number: int | None, /) -> Iterator[None]:
    """Limit PyTorch to `number` threads inside the block; None: no limit.

    Threads that wait for each other on a machine that is busy elsewhere can slow small models down tenfold; one thread
    cannot.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Defer Ctrl-C until the current step finishes: the function returns True after a first one; a second interrupts.

    Outside the main thread, where signals cannot be handled, Ctrl-C is not deferred.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def allocator_hint() -> str | None:
    """Return how to make training on a CPU faster; None on a GPU, without glibc, and where malloc is set up already."""
    if torch.cuda.is_available() or platform.libc_ver()[0] != "glibc":
        return None
    if any(name.startswith("MALLOC_") or name == "LD_PRELOAD" for name in os.environ):
        return None
    return (
        "Training on a CPU can be several times faster if malloc keeps freed memory. To try it, set before the start:\n"
        "export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_TOP_PAD_=268435456"
    )
