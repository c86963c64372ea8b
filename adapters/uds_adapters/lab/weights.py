"""Checks of model files: weights that do not match the model, and reasons why a folder cannot be loaded."""

from __future__ import annotations

import json
import textwrap
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from .errors import LabError, LabWarning

__all__ = ["check_weights", "reason"]

_LONGEST = 400  # characters of a library's message
_SHOWN = 3  # names in a message
_POINTER = b"version https://git-lfs"
_HEADER = 8  # bytes at the start of a safetensors file that give the length of its header


def check_weights(model: Any, loading: Mapping[str, Any], /, *, folder: Path) -> None:
    """Raise an error unless all weights of `model` come from the files in `folder`, and those fit its modules.

    Parameters
    ----------
    model
        As transformers loaded it. Weights that it ties to others need no place of their own in the files.
    loading
        Loading info of transformers: `missing_keys`, `unexpected_keys`, `mismatched_keys`.
    folder
        Named in the message.

    Raises
    ------
    LabError
        If a weight is missing or has another shape, or if a module of the model has more weights in the files than in
        the model (other layers, a bias). Weights of whole modules that the model does not have, such as a value head
        or a vision tower, are left out with a `LabWarning`.
    """
    missing, unexpected = [*loading["missing_keys"]], [*loading["unexpected_keys"]]
    shapes = [f"{name} {tuple(theirs)}, not {tuple(ours)}" for name, theirs, ours in loading["mismatched_keys"]]
    if missing or shapes or any(_belongs(model, name) for name in unexpected):
        differing = {"missing": missing, "of another shape": shapes, "not in the model": unexpected}
        parts = [f"{what}: {_names(names)}" for what, names in differing.items() if names]
        msg = (
            f"the weights in {folder} do not match its config.json ({'; '.join(parts)}). "
            f"{_prefix(missing, unexpected)}Weights that are missing would be random: save the model again with "
            "`save_pretrained`, or correct config.json"
        )
        raise LabError(msg)
    if unexpected:
        msg = f"weights in {folder} that the causal language model does not have are left out: {_names(unexpected)}"
        warnings.warn(msg, LabWarning, stacklevel=3)


def reason(error: BaseException, folder: Path, /) -> str:
    """Return in one sentence why `folder` could not be loaded: what is wrong with its files, or what a library says."""
    files = [] if isinstance(error, ImportError) else sorted(file for file in folder.iterdir() if file.is_file())
    damages = (_damage(file) for file in files)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next((damage for damage in damages if damage), textwrap.shorten(lines[0], _LONGEST).rstrip(":."))


def _damage(file: Path) -> str | None:
    """Return what is wrong with a file, as far as that can be seen without reading all of it."""
    size = file.stat().st_size
    if file.suffix in (".safetensors", ".bin", ".json", ".model", ".pt", ".gguf") and size == 0:
        return f"{file.name} is empty: fetch it again"
    with file.open("rb") as stream:
        head = stream.read(len(_POINTER))
        if head == _POINTER:
            return f"{file.name} is a Git LFS pointer: fetch the file itself with `git lfs pull` or `hf download`"
        if file.suffix == ".safetensors":
            return _safetensors_damage(file, size)
    return None


def _safetensors_damage(file: Path, size: int) -> str | None:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER), "little")
        if length > size - _HEADER:
            return f"{file.name} is no safetensors file, or was cut off: fetch it again"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError):
            return f"{file.name} has a damaged header: fetch it again"
    expected = _HEADER + length + max(ends, default=0)
    if size != expected:
        return f"{file.name} has {size:,} bytes, and its header says {expected:,}: it was cut off; fetch it again"
    return None


def _belongs(model: Any, name: str) -> bool:
    """Return whether the weight `name` belongs to a module of `model` that holds weights or layers of its own."""
    module, parts = model, name.split(".")
    for part in parts[:-1]:
        child = getattr(module, "_modules", {}).get(part)
        if child is None:
            break
        module = child
    return isinstance(module, torch.nn.ModuleList) or (module is not model and not any(module.children()))


def _prefix(missing: Collection[str], unexpected: Collection[str]) -> str:
    """Return a sentence on a prefix that keeps names from matching."""
    found = ((name, wanted) for name in sorted(unexpected) for wanted in missing if name.endswith("." + wanted))
    name, wanted = next(found, ("", ""))
    return f"Names in the files begin with {name.removesuffix(wanted)!r}, which must be taken off. " if name else ""


def _names(names: Collection[str]) -> str:
    first = sorted(names)[:_SHOWN]
    more = len(names) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
