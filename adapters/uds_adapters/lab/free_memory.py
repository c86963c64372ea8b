"""Memory that is no longer used, given back to the system."""

import ctypes
import gc
import os
import sys

__all__ = ["free_memory", "map_large_blocks"]

_M_MMAP_THRESHOLD = -3  # of malloc.h


def free_memory() -> None:
    """Free models of earlier runs, whose trainers refer to themselves, and give their memory back to the system.

    glibc keeps what is freed between other allocations; it may where ``MALLOC_TRIM_THRESHOLD_`` says that it shall.
    Other allocators are left to themselves.
    """
    gc.collect()
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        _call_glibc("malloc_trim", 0)


def map_large_blocks() -> None:
    """Let glibc map blocks of half a mebibyte and more on their own, so that each goes back when it is freed.

    Left to itself, it soon takes them from its heap, where small results that stay split what large blocks leave: a
    walk over a pool in blocks then grows with the pool. Where the environment says how large ones are mapped, it holds.
    """
    if not os.environ.keys() & {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"}:
        _call_glibc("mallopt", _M_MMAP_THRESHOLD, 512 * 2**10)


def _call_glibc(name: str, *numbers: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*numbers)
