"""Whether files are those that they were, without keeping them."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["of_file", "of_model"]

_PART = 1 << 20  # bytes: weights are read at their beginning and end only, since there may be gigabytes of them


def of_file(path: Path, /) -> str:
    """Of all that it holds."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_PART):
            digest.update(block)
    return digest.hexdigest()[:16]


def of_model(folder: Path, /) -> str:
    """Of a model folder: names, sizes, and the first and last MiB of each file."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_PART))
            stream.seek(max(0, size - _PART))
            digest.update(stream.read())
    return digest.hexdigest()[:16]
