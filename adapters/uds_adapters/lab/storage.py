"""Files that are whole or not there, whenever power, patience or disk space ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .errors import LabError

__all__ = ["as_json", "check_model", "check_records", "claim", "folder", "of_file", "of_model", "whole", "write"]


@contextlib.contextmanager
def whole(path: Path, /) -> Iterator[BinaryIO]:
    """A file to write to, beside `path`: forced to the disk and renamed to it at the end, taken away on any failure.

    Raises
    ------
    LabError
        Where the disk is full or the folder refuses; what was at `path` is still there.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise _told(error, path) from None
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write(path: Path, text: str, /) -> None:
    """Write `text` to `path`; see `whole`."""
    with whole(path) as stream:
        stream.write(text.encode())


def as_json(value: Any, /, *, indent: int | None = None) -> str:
    """`value` as JSON that every program reads: what is no finite number is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def claim(path: Path, /, *, overwrite: bool) -> Path:
    """An output folder: made where there is none, refused where it holds something, unless `overwrite` says so.

    Raises
    ------
    LabError
        Where it is refused, cannot be made, or is a file.
    """
    if not overwrite and path.is_dir() and any(path.iterdir()):
        msg = f"`output` {path} already holds files: name another folder, or replace its results with `--overwrite`"
        raise LabError(msg)
    return folder(path)


def folder(path: Path, /) -> Path:
    """`path`, made where there is none.

    Raises
    ------
    LabError
        Where it cannot be made, or is a file.
    """
    if path.exists() and not path.is_dir():
        msg = f"{path} is a file: expected a folder, or a name for a new one"
        raise LabError(msg)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _told(error, path) from None
    return path


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _told(error: OSError, path: Path) -> LabError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LabError(f"no space left on the disk for {path}: make room, or name a folder elsewhere with `--output`")
    return LabError(f"cannot write {path} ({error.strerror}): name a folder that you may write to with `--output`")


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


def check_model(folder: Path, /) -> None:
    """Raise where `folder` cannot hold a model."""
    if not folder.is_dir():
        msg = (
            f"no folder {folder}: `--model` takes a local folder with a model and its tokenizer, and nothing is "
            "downloaded here. Fetch one first: `hf download NAME --local-dir FOLDER`"
        )
        raise LabError(msg)
    if not (folder / "config.json").is_file():
        msg = f"{folder} holds no config.json: expected a model folder as `save_pretrained` writes it"
        raise LabError(msg)


def check_records(file: Path, /) -> None:
    """Raise where `file` cannot hold records."""
    if not file.is_file():
        msg = f"no file {file}: expected a JSONL file, one record a line"
        raise LabError(msg)
