"""Ctrl-C that lets the step under way end, so that what is kept is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["patient"]


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
