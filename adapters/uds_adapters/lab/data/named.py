"""Data sets that are no files: standard input, and names on the Hugging Face Hub."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import LabError
from .files import COMPRESSED, KNOWN, check, kind

__all__ = ["STANDARD_INPUT", "as_files"]

STANDARD_INPUT = Path("-")
_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(/(?P<config>[\w.-]+))?(:(?P<split>[\w.+%\[\]:-]+))?", flags=re.ASCII)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.arrow$")


def as_files(data: Path, /) -> Path:
    """Return a path that `listed` takes, checked.

    Parameters
    ----------
    data
        Such a path; ``-``, for standard input, which is copied to a temporary file, since data is read more than once;
        or a name on the Hub, ``owner/name``, ``owner/name:split`` or ``owner/name/configuration:split``, which is
        fetched into the cache of `datasets`, or only looked up there where ``HF_HUB_OFFLINE=1`` is set.

    Raises
    ------
    LabError
        If there is no such data set.
    """
    if data == STANDARD_INPUT:
        return _copied()
    found = _NAME.fullmatch(data.as_posix())
    if found is not None and not _may_be_local(data):
        return _fetched(found["name"], found["config"], found["split"] or "train")
    check(data)
    return data


def _may_be_local(data: Path) -> bool:
    """Return whether a path that could be a name is one: it exists, or its folder does, or it ends as files do."""
    return data.parent.exists() or kind(data) in KNOWN or data.suffix[1:].lower() in COMPRESSED


def _copied() -> Path:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "`--data -` reads standard input, which only one of several processes has: write it to a file first"
        raise LabError(msg)
    folder = Path(tempfile.mkdtemp(prefix="uds-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "standard-input"
    with file.open("wb") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
    if not file.stat().st_size:
        msg = "`--data -` reads standard input, and it is empty: expected one JSON object a line, or an array of them"
        raise LabError(msg)
    return file


def _fetched(name: str, config: str | None, split: str) -> Path:
    """Return the files that `datasets` keeps of a data set on the Hub."""
    import datasets

    full = name + (f"/{config}" if config else "")
    try:
        found: Any = datasets.load_dataset(name, config, split=split, keep_in_memory=False)
    except Exception as error:  # of datasets, huggingface_hub and the network, with no base class in common
        offline = " The network is off (`HF_HUB_OFFLINE=1`)." if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        msg = (
            f"no file or folder {full}, and no data set of that name with the split {split!r} could be read from the "
            f"Hugging Face Hub or the cache of `datasets`: {' '.join(str(error).split())}.{offline}"
        )
        raise LabError(msg) from None
    files = sorted(Path(part["filename"]) for part in found.cache_files)
    if len(files) < 2:
        return files[0]
    return files[0].with_name(_SHARD.sub(r"-*-of-\1.arrow", files[0].name))
