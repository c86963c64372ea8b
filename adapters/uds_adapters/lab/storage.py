"""Output files and folders, checks of input files, and content hashes of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic_write import write_atomically
from .errors import LabError

__all__ = [
    "LOCK",
    "OWNER",
    "as_json",
    "atomic",
    "check_outputs",
    "check_records",
    "claim",
    "disk_full",
    "folder",
    "of_file",
    "of_weights",
    "temporary_folder",
    "user_error",
    "write",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PYTORCH = ("PytorchStreamWriter failed", ". unexpected pos ")
_WORDS = (*(f"os error {number}" for number in _FULL), os.strerror(errno.ENOSPC), *_PYTORCH)
LOCK, OWNER = "running.lock", "running.json"
"""Files in an output folder while a command runs; see `locks`. A killed command leaves them there."""


@contextlib.contextmanager
def atomic(path: Path, /) -> Iterator[BinaryIO]:
    """Open a stream as `write_atomically` does, with errors for the user.

    Raises
    ------
    LabError
        If the disk is full or the folder cannot be written; the file that was at `path` is still there.
    """
    try:
        with write_atomically(path) as stream:
            yield stream
    except OSError as error:
        raise user_error(error, path) from None


def write(path: Path, text: str, /) -> None:
    """Write `text` to `path`, atomically."""
    with atomic(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))  # names of files may be no text


def as_json(value: Any, /, *, indent: int | None = None) -> str:
    """Return `value` as strict JSON: numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def claim(path: Path, /, *, overwrite: bool, leftovers: Collection[str] = ()) -> Path:
    """Create an output folder; refuse one that holds files, unless `overwrite` is true.

    Files of a lock, unfinished ones (``.tmp``) and those named in `leftovers`, as a failed start leaves them, do not
    count.

    Raises
    ------
    LabError
        If it is refused, cannot be created, or is a file.
    """
    ignored = {LOCK, OWNER, *leftovers}
    files = [file for file in path.iterdir() if file.name not in ignored] if path.is_dir() else []
    if not overwrite and any(file.suffix != ".tmp" for file in files):
        msg = f"`output` {path} already holds files: name another folder, or replace its results with `--overwrite`"
        raise LabError(msg)
    return folder(path)


def folder(path: Path, /) -> Path:
    """Create the folder `path` if it does not exist, and return it.

    Raises
    ------
    LabError
        If it cannot be created, or is a file.
    """
    if path.exists() and not path.is_dir():
        msg = f"{path} is a file: expected a folder, or a name for a new one"
        raise LabError(msg)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise user_error(error, path) from None
    return path


@contextlib.contextmanager
def temporary_folder(path: Path, /) -> Iterator[Path]:
    """Create a folder for the files of one command; they are deleted afterwards, and before where one was killed.

    Raises
    ------
    LabError
        If it cannot be created.
    """
    shutil.rmtree(path, ignore_errors=True)
    try:
        yield folder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def disk_full(error: BaseException, /) -> bool:
    """Return whether an error, or one that it came of, says that a disk is full or a quota used up.

    Libraries have their own exceptions for it: that of safetensors ends in the system's words; those of PyTorch say
    only that writing failed.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if any(words in str(error) for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return False


def user_error(error: OSError, path: Path, /) -> LabError:
    """Return the error to show for one of the system that occurred at `path`."""
    if disk_full(error):
        return LabError(f"no space left on the disk for {path}: make room, or name a folder elsewhere with `--output`")
    return LabError(f"cannot write {path} ({error.strerror}): name a folder that you may write to with `--output`")


_PART = 1 << 20  # bytes that are read at once


def of_file(path: Path, /) -> str:
    """Return the hash of the content of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_PART):
            digest.update(block)
    return digest.hexdigest()[:16]


def of_weights(path: Path, /) -> str:
    """Return the hash of a file that may have gigabytes: of its size, its first and its last MiB."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.sha256(str(size).encode() + stream.read(_PART))
        stream.seek(max(0, size - _PART))
        digest.update(stream.read())
    return digest.hexdigest()[:16]


def check_outputs(data: Path, output: Path, subset: Path | None, /, *, overwrite: bool) -> None:
    """Raise unless the files of a command that reads `data` can be written.

    Raises
    ------
    LabError
        If a file is a folder, is in none, is the data set, exists without `overwrite`, or if both are the same.
    """
    for name, path in (("output", output), ("subset", subset)):
        if path is None:
            continue
        if path.is_dir() or not path.parent.is_dir():
            msg = f"`{name}` {path} is no name for a file: expected one in a folder that is there"
            raise LabError(msg)
        if path.exists() and data.exists() and path.samefile(data):
            msg = f"`{name}` {path} is the data set itself: name another file"
            raise LabError(msg)
        if path.exists() and not overwrite:
            msg = f"`{name}` {path} is already there: name another file, or replace it with `--overwrite`"
            raise LabError(msg)
    if subset is not None and subset.resolve() == output.resolve():
        msg = f"`subset` and `output` are the same file, {output}: name two"
        raise LabError(msg)


def check_records(file: Path, /) -> None:
    """Raise an error if there is no `file`."""
    if not file.is_file():
        msg = f"no file {file}: expected a JSONL file, one record a line"
        raise LabError(msg)
