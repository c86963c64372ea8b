"""Atomic file writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["write_atomically"]


@contextlib.contextmanager
def write_atomically(path: Path, /) -> Iterator[BinaryIO]:
    """Open a stream whose content replaces the file at `path` when the block ends, or never.

    The stream writes ``<path>.tmp``, which is flushed to the disk and renamed at the end; a power failure leaves either
    the old file or the new one. If the block raises, the temporary file is deleted and `path` is as before. A killed
    process leaves the temporary file, which the next write replaces. A file has one writer: give each process its own.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself survive a power failure; Windows has no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
