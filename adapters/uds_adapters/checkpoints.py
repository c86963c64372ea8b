"""Checkpoints of a selector in safetensors format."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple

import torch

import uds_core as uds
from uds_core import __version__

from .atomic_write import write_atomically

__all__ = ["describe", "differences", "load", "options", "save"]

FORMAT, VERSION = "uds_core.checkpoint", 1

_WITHOUT = "start without it: the selection then begins with an empty memory"
_REMEDY = f"take another copy of it, or {_WITHOUT}"


def save(file: Path | str, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write `tensors` to `file` atomically.

    Parameters
    ----------
    file
        A path; a missing folder is created.
    tensors
        Name -> tensor on any device, as `BatchSelector.state_dict` gives them; may be empty.
    about
        Description that `load` compares, JSON data; for a policy the result of `describe`.

    Raises
    ------
    TypeError, ValueError
        When `about` is not JSON data.

    Notes
    -----
    Written by `write_atomically`. A file has one writer: give each process its own.
    """
    from safetensors.torch import save as serialise

    file = Path(file)
    tensors = {name: _host(tensor) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "version": VERSION, "library": __version__, "about": about}
    text = _json(header)
    data = serialise(tensors, metadata={"uds": text, "sha256": _digest(text, tensors)})
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(file) as stream:
        stream.write(data)


def load(file: Path | str, *, about: Mapping[str, Any] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of `file`, on the CPU, and their description. Nothing is unpickled.

    Parameters
    ----------
    file
        As `save` wrote it.
    about
        Expected description: each entry must equal the saved one, except ``options``. Some options of a policy may
        change (`keep`, `alpha`); `uds_core.restore` refuses a state that does not fit the others; see `differences`.

    Raises
    ------
    ValueError
        When the file is something else, cut off, damaged, of a newer format, or of another description.
    FileNotFoundError
        When the file does not exist.
    """
    file = Path(file)
    tensors, metadata = _read(file)
    text = metadata.get("uds", "")
    try:
        header = json.loads(text)
        known, version = header["format"] == FORMAT, int(header["version"])
    except (ValueError, KeyError, TypeError):
        known, version = False, 0
    if not known:
        msg = f"{file} is a safetensors file, but no selector's checkpoint, or a damaged one: {_REMEDY}"
        raise ValueError(msg)
    if version > VERSION:
        msg = (
            f"{file} has version {version} of the format, written by uds-core {header.get('library')}; "
            f"this is uds-core {__version__}, which reads up to version {VERSION}: update uds-core"
        )
        raise ValueError(msg)
    if metadata.get("sha256") != _digest(text, tensors):
        msg = f"{file} is damaged: its data are not those of its checksum: {_REMEDY}"
        raise ValueError(msg)
    _check_about(file, header["about"], about or {})
    return tensors, header["about"]


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], /) -> list[str]:
    """Return the differences of two `about`, option by option: ``["saved with seed=0, now seed=1"]``.

    For the error message when a policy refuses the saved state.
    """
    old, new = _flat(json.loads(_json(saved))), _flat(json.loads(_json(now)))
    return [
        f"saved {_with(old, name)}, now {_with(new, name).removeprefix('with ')}"
        for name in [*old, *(name for name in new if name not in old)]
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def describe(policy: uds.Policy, /) -> dict[str, Any]:
    """Return a policy as `about`: ``{"policy": name, "options": {...}}``.

    The name is that of the registry, or else the class's own with its module. The options are those of `options`;
    arrays of any library are described by shape, dtype and checksum; functions and other objects by their names.
    """
    name = uds.name_of(policy) or _name(type(policy))
    return {"policy": name, "options": _plain(options(policy))}


def options(policy: uds.Policy, /) -> dict[str, Any]:
    """Return the options of a policy: the fields of a dataclass, or the public attributes of any other object."""
    if dataclasses.is_dataclass(policy):
        return {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    return {name: value for name, value in getattr(policy, "__dict__", {}).items() if not name.startswith("_")}


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    data = file.read_bytes()  # once: another checkpoint may replace the file between two reads
    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"{file} is no safetensors file, or was cut off or damaged ({error}): {_REMEDY}"
        raise ValueError(msg) from error
    size = int.from_bytes(data[:8], "little")
    return tensors, json.loads(data[8 : 8 + size]).get("__metadata__") or {}


def _check_about(file: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    asked = {name: saved[name] for name in now if name in saved}
    if differences({**asked, "options": {}}, {**now, "options": {}}):
        msg = f"{file} does not fit: {'; '.join(differences(asked, now))}: use what it was saved with, or {_WITHOUT}"
        raise ValueError(msg)


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries with the options at the top level."""
    return {**{name: value for name, value in about.items() if name != "options"}, **about.get("options", {})}


def _with(about: Mapping[str, Any], name: str) -> str:
    return f"with {name}={about[name]!r}" if name in about else f"without {name}"


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tensors[name].dtype} {tuple(tensors[name].shape)}\n".encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _host(tensor: torch.Tensor) -> torch.Tensor:
    # a copy: tensors that share memory cannot be saved
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"`about` must be JSON data ({error}): use numbers, strings and lists, or `describe(policy)`"
        raise type(error)(msg) from error


class _Array(NamedTuple):
    array: Any


def _plain(value: Any) -> Any:
    """Return an option as JSON data."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (Integral, Real)):
        number = int(value) if isinstance(value, Integral) else float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return _of_object(value)


def _of_object(value: Any) -> Any:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if isinstance(value, uds.Policy) and not isinstance(value, type):
        return describe(value)
    return _name(value if hasattr(value, "__qualname__") else type(value))


def _array(value: Any) -> dict[str, Any]:
    # `flatten` copies arrays of any library to the CPU; half-precision tensors need torch
    data = _bytes(_host(value)) if isinstance(value, torch.Tensor) else uds.flatten(_Array(value))["array"].tobytes()
    dtype = str(value.dtype).rsplit(".", maxsplit=1)[-1]
    return {"shape": list(value.shape), "dtype": dtype, "sha256": hashlib.sha256(data).hexdigest()[:16]}


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
