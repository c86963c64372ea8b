"""The most memory that a computation holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Peak", "peak"]

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
