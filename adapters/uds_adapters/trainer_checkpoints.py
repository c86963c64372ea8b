"""Checkpoint folders of the Hugging Face Trainer: whole, or cut off by a kill or a full disk."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from .ranks import Ranks

__all__ = ["FILE", "damage", "resumable", "steps"]

FILE = "uds.safetensors"
"""Name of the selector's file in a checkpoint."""

_STATE = "trainer_state.json"  # the Trainer writes it last
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")


def resumable(given: Any, /, *, output: Path | str, rank: int) -> Any:
    """Return from where to resume: `given`, or the newest whole checkpoint where that would be one that was cut off.

    All processes must call this, and return the same.

    Parameters
    ----------
    given
        As `Trainer.train` takes it: a checkpoint, or True for the newest in `output`.
    output
        The Trainer's folder.
    rank
        Of this process, among all that train.

    Raises
    ------
    ValueError
        When `given` was cut off, or no checkpoint in `output` is whole; it names the folders to delete.
    """
    if not (given is True or isinstance(given, (str, Path))):
        return given
    folder = Path(output) if given is True else Path(given).parent
    ranks = Ranks()
    names = {path.name for found in ranks.collect(list(steps(folder).values())) for path in found}
    names = sorted(names, key=lambda name: int(name.partition("-")[2]), reverse=True)
    if given is not True:
        names = [Path(given).name, *(name for name in names if name != Path(given).name)]
    damaged: dict[Path, str] = {}
    for name in names:
        problems = ranks.collect(
            damage(folder / name, rank=rank) if given is True or folder.joinpath(name).is_dir() else ""
        )
        if not any(problems):
            return _resumed(given, folder / name, damaged)
        damaged[folder / name] = next(filter(None, problems))
    return _resumed(given, None, damaged)


def _resumed(given: Any, whole: Path | None, damaged: dict[Path, str]) -> Any:
    """Return `given`, or the newest `whole` checkpoint with a warning; raise where neither will do."""
    if not damaged:
        return given
    others = "; ".join(f"{path} was not written to its end ({problem})" for path, problem in damaged.items())
    delete = "delete " + ", ".join(map(str, damaged))
    if whole is None:
        msg = f"{others}, and there is no whole checkpoint: {delete}, and start without `resume_from_checkpoint`"
        raise ValueError(msg)
    if given is not True:
        msg = f"{others}: {delete}, and resume from {whole}"
        raise ValueError(msg)
    msg = f"{others}: the run is resumed from {whole} instead; {delete} if this warning should not come again"
    warnings.warn(msg, stacklevel=4)
    return str(whole)


def steps(folder: Path | str, /) -> dict[int, Path]:
    """Return step -> checkpoint in `folder`, whole or not, the newest first."""
    folder = Path(folder)
    found = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    return dict(sorted(found.items(), reverse=True))


def damage(checkpoint: Path, /, *, rank: int = 0) -> str:
    """Return what keeps the process of `rank` from resuming from a checkpoint; empty where it is whole.

    The Trainer writes `trainer_state.json` last, but other processes may still be writing their random states then; and
    files may be cut off where a full disk or a power failure ended a run, or where an old checkpoint was written over.
    """
    if not (checkpoint / _STATE).is_file():
        return f"{_STATE} is missing"
    for file in sorted(checkpoint.rglob("*")):
        if file.name == _STATE or file.name.endswith(".index.json"):
            problem = _damage_of_json(file)
        else:
            problem = file.suffix in _WEIGHTS and file.is_file() and not _is_whole(file)
        if problem:
            return problem if isinstance(problem, str) else f"{file.relative_to(checkpoint)} was cut off or damaged"
    random_state = checkpoint / f"rng_state_{rank}.pth"
    if max(rank, 1) < _processes(checkpoint / FILE) and not random_state.is_file():
        return f"{random_state.name} is missing"
    return ""


def _damage_of_json(file: Path) -> str | bool:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return True
    if not isinstance(content, dict):
        return True
    parts = content.get("weight_map", {}) if file.name != _STATE else {}
    missing = sorted({name for name in parts.values() if not (file.parent / name).is_file()})
    return f"{missing[0]} is missing" if missing else False


def _is_whole(file: Path) -> bool:
    """Return whether the end of a file of weights is there; its contents are not read."""
    if file.suffix == ".safetensors":
        return _safetensors_header(file) is not None
    with file.open("rb") as stream:
        start = stream.read(4)
    # other formats than torch's own cannot be judged, but do not begin with zeros
    return zipfile.is_zipfile(file) if b"PK\x03\x04".startswith(start) else bool(start.strip(b"\0"))


def _safetensors_header(file: Path) -> dict[str, Any] | None:
    """Return the header; None where the file is shorter than that says."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= file.stat().st_size - 8:
            return None
        try:
            header = json.loads(stream.read(size))
        except ValueError:
            return None
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return header if 8 + size + max(ends, default=0) == file.stat().st_size else None


def _processes(file: Path) -> int:
    """Return the number of processes that saved the checkpoint, as its selector's file names it; else 1."""
    header = _safetensors_header(file) if file.is_file() else None
    try:
        return int(json.loads((header or {})["__metadata__"]["uds"])["about"]["processes"])
    except (KeyError, ValueError, TypeError):
        return 1
