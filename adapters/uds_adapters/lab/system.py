"""The most memory that a computation holds."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Peak", "patient", "peak", "threads"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """What was measured."""

    bytes: int | None = None
    """None where this machine does not tell."""


@contextlib.contextmanager
def peak(device: torch.device, /) -> Iterator[Peak]:
    """The peak of what is computed inside, everything that was held before included.

    On CUDA, what PyTorch has allocated on `device`. On the CPU of a Linux machine, what the process holds in memory:
    an allocator that keeps what was freed makes it fall late or never, so measure the small before the large.
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
    """Whether the peak of this process could be set back to what it holds now."""
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
    """At most `number` threads for an operation; None: as it is. As before afterwards.

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
    """While this is entered, the first Ctrl-C only makes the function return True; a second one interrupts at once.

    Outside the main thread, which alone can be asked, Ctrl-C is as it was.
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
