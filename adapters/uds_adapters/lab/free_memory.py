"""Memory of models that are no longer used, given back to the system."""

import ctypes
import gc
import os
import sys

__all__ = ["free_memory"]


def free_memory() -> None:
    """Free models of earlier runs, whose trainers refer to themselves, and give their memory back to the system.

    glibc keeps what is freed between other allocations; it may where ``MALLOC_TRIM_THRESHOLD_`` says that it shall.
    Other allocators are left to themselves.
    """
    gc.collect()
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
