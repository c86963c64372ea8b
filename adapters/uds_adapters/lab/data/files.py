"""Files of a data set: one, a folder or a pattern of several, or a folder that `datasets` saved."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from .. import storage
from ..errors import LabError

__all__ = ["COMPRESSED", "KNOWN", "check", "fingerprint", "is_saved", "kind", "listed"]

KNOWN = ("jsonl", "ndjson", "json", "parquet", "arrow", "csv", "tsv")
"""Suffixes of files in a folder that hold records."""
COMPRESSED = ("gz", "bz2", "xz", "zst")
"""Suffixes after those, of compressed files."""

_SAVED = ("state.json", "dataset_info.json")  # in a folder of `Dataset.save_to_disk`
_SPLITS = "dataset_dict.json"  # in a folder of `DatasetDict.save_to_disk`


def check(path: Path, /) -> None:
    """Raise an error if there is nothing to read at `path`."""
    listed(path)


def listed(path: Path, /) -> list[Path]:
    """Return the files of a data set, in the order in which they are read.

    Parameters
    ----------
    path
        A file; a folder, whose files are sorted by name, or which `datasets` saved, and then is returned itself; or a
        pattern such as ``shards/*.jsonl``.

    Raises
    ------
    LabError
        If there is none.
    """
    if path.is_file() or is_saved(path):
        return [path]
    if path.is_dir():
        if (path / _SPLITS).is_file():
            names = ", ".join(sorted(part.name for part in path.iterdir() if is_saved(part)))
            msg = f"{path} holds a data set of several splits: name one of its folders: {names}"
            raise LabError(msg)
        files = sorted(file for file in path.iterdir() if file.is_file() and kind(file) in KNOWN)
        if not files:
            msg = f"{path} holds no records: expected files that end in {', '.join('.' + name for name in KNOWN)}"
            raise LabError(msg)
        return files
    files = sorted(Path(name) for name in glob.glob(str(path)))  # noqa: PTH207 - of absolute patterns too
    files = [file for file in files if file.is_file()]
    if not files:
        msg = f"no file {path}: expected JSONL, JSON, CSV or Parquet, or a folder or pattern of such files"
        raise LabError(msg)
    return files


def is_saved(path: Path, /) -> bool:
    """Return whether `datasets` saved a data set in the folder `path`."""
    return all((path / name).is_file() for name in _SAVED)


def kind(file: Path, /) -> str:
    """Return the suffix that says what a file holds, without the dot and that of its compression."""
    suffixes = [suffix[1:].lower() for suffix in file.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def fingerprint(path: Path, /) -> str:
    """Return the hash of the content of a data set: of its file, or of all its files with their names."""
    files = listed(path)
    if files == [path] and path.is_file():
        return storage.of_file(path)
    inner = [file for one in files for file in (sorted(one.iterdir()) if one.is_dir() else [one]) if file.is_file()]
    text = "\n".join(f"{file.name} {storage.of_file(file)}" for file in inner)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
