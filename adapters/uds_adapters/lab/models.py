"""Models and tokenizers from folders, for full or LoRA fine-tuning."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from .errors import LabError, LabWarning
from .free_memory import free_memory
from .library_logs import quiet
from .model_paths import adapter_base, check_model, hub_name, is_adapter
from .storage import disk_full
from .weights import check_weights, reason

__all__ = [
    "Saved",
    "context",
    "load_model",
    "load_tokenizer",
    "quiet",
    "save",
    "trainable",
    "vocabulary",
    "with_adapter",
    "with_lora",
]

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # not given, it asks on the terminal


def load_model(folder: Path, /, *, lora: bool = False) -> Any:
    """Load the causal language model in `folder`, its weights in float32, all of them from the files there.

    LoRA adapters in `folder` are merged into their base; with `lora` they are put on it and train, as `with_lora` would
    put new ones. What an earlier model has left is freed first.

    Raises
    ------
    LabError
        If it cannot be loaded, or if its weights do not match it.
    """
    check_model(folder)
    free_memory()
    if is_adapter(folder):
        model = with_adapter(load_model(adapter_base(folder)), folder, trains=lora)
        return model if lora else model.merge_and_unload().requires_grad_(True)
    config = _config(folder)
    text = config.get_text_config()
    if not _inside(text.pad_token_id, text.vocab_size):  # an embedding refuses it
        text.pad_token_id = None
    with _explained("causal language model", folder):
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are named below
            output_loading_info=True,
            **_LOCAL,
        )
    model, loading = loaded
    check_weights(model, loading, folder=folder)
    return model


def load_tokenizer(folder: Path, /) -> Any:
    """Load the tokenizer in `folder`.

    If its padding token is beyond the model's embedding, as when it was added without resizing, another token pads.
    LoRA adapters without a tokenizer have that of their base.
    """
    check_model(folder)
    if is_adapter(folder) and not (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(adapter_base(folder))
    with _explained("tokenizer", folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **_LOCAL)
    size = vocabulary(folder)
    if not _inside(tokenizer.pad_token_id, size):
        tokens = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token, tokenizer.convert_ids_to_tokens(0))
        known = [token for token in tokens if token is not None]
        before, number = tokenizer.pad_token, tokenizer.pad_token_id
        tokenizer.pad_token = next(one for one in known if _inside(tokenizer.convert_tokens_to_ids(one), size))
        msg = (
            f"the padding token {before!r} of {folder} has id {number}, and the model's embedding has {size} rows: "
            f"{tokenizer.pad_token!r} pads instead, which changes no loss"
        )
        warnings.warn(msg, LabWarning, stacklevel=2)
    return tokenizer


def context(folder: Path, /) -> int | None:
    """Return how many tokens the model in `folder` has positions for; None where its configuration does not say."""
    return getattr(_config(folder).get_text_config(), "max_position_embeddings", None)


def vocabulary(folder: Path, /) -> int | None:
    """Return the rows of the embedding of the model in `folder`; None where its configuration does not say."""
    return getattr(_config(folder).get_text_config(), "vocab_size", None)


def _config(folder: Path) -> Any:
    check_model(folder)
    folder = adapter_base(folder) if is_adapter(folder) else folder
    with _explained("configuration", folder):
        return transformers.AutoConfig.from_pretrained(folder, **_LOCAL)


def _inside(token: int | None, size: int | None) -> bool:
    return token is None or size is None or token < size


@contextlib.contextmanager
def _explained(what: str, folder: Path) -> Iterator[None]:
    """Show the user why something cannot be loaded, whatever library says so and with whatever exception."""
    try:
        yield
    except Exception as error:
        msg = f"{folder} holds no {what} that transformers can load: {reason(error, folder)}"
        raise LabError(msg) from error


def with_lora(model: Any, /, *, rank: int, seed: int) -> Any:
    """`model` with low-rank adapters on all its linear layers but the head; only they train.

    Their first values depend on `seed` alone, and the global generator is left as it was. A model that has adapters
    already keeps those, whatever their rank.
    """
    import peft

    if hasattr(model, "peft_config"):
        return model

    if rank < 1:
        msg = f"`lora_rank` must be at least 1, got {rank}"
        raise LabError(msg)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def with_adapter(model: Any, folder: Path, /, *, trains: bool = False) -> Any:
    """`model` with the adapters that PEFT saved in `folder`; `trains`: only they train, else nothing does."""
    import peft

    if not (folder / "adapter_config.json").is_file():
        msg = f"{folder} holds no adapter_config.json: `--adapter` takes adapters, as `uds train --lora` saves them"
        raise LabError(msg)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?s).*Found missing adapter keys")
            return peft.PeftModel.from_pretrained(model, folder, is_trainable=trains, local_files_only=True)
    except Exception as error:
        msg = f"the adapters in {folder} do not fit the model: {reason(error, folder)}"
        raise LabError(msg) from error


def trainable(model: Any, /) -> tuple[int, int]:
    """Parameters that train, and all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was saved, and where."""

    kind: Literal["adapters", "model"]
    folder: Path
    base: Path
    """The model that adapters need."""
    parameters: int
    """Numbers that were saved: of the adapters, or of the whole model."""
    size: int
    """Bytes of their file or files."""

    def words(self) -> str:
        """What it is, what it needs, and how it is loaded."""
        numbers = f"{self.parameters:,} parameters, {_bytes(self.size)}"
        if self.kind == "model":
            return (
                f"Saved in {self.folder}: the whole model, all weights ({numbers}, float32), and its tokenizer. Load "
                f"it with AutoModelForCausalLM.from_pretrained({str(self.folder)!r})."
            )
        return (
            f"Saved in {self.folder}: LoRA adapters only ({numbers}), and the tokenizer. Nothing was merged: they work "
            f"on top of the model in {self.base}, which is as it was. Load both with PeftModel.from_pretrained("
            f"AutoModelForCausalLM.from_pretrained({str(self.base)!r}), {str(self.folder)!r})."
        )


def save(model: Any, /, *, tokenizer: Any, base: Path, folder: Path) -> Saved:
    """Save `model` and its tokenizer in a folder of its own in `folder`: ``adapters``, or ``model``.

    The folder appears when it is whole; one that was there is replaced.

    Raises
    ------
    LabError
        Where it cannot be written.
    """
    kind: Literal["adapters", "model"] = "adapters" if hasattr(model, "peft_config") else "model"
    base = adapter_base(base) if is_adapter(base) else base
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = str(base.absolute())
    target, unfinished = folder / kind, folder / f"{kind}.tmp"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        if kind == "adapters" and (name := hub_name(base)):
            _name_base(unfinished / "adapter_config.json", name)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.replace(target)
    except Exception as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not (isinstance(error, OSError) or disk_full(error)):
            raise
        why = "no space left on the disk" if disk_full(error) else str(error)
        msg = f"the {kind} could not be saved in {target}: {why}"
        raise LabError(msg) from error
    trained = [p.numel() for p in model.parameters() if kind == "model" or p.requires_grad]
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    return Saved(kind=kind, folder=target, base=base, parameters=sum(trained), size=size)


def _name_base(file: Path, name: str) -> None:
    """Write the name of the base in place of its path, which PEFT needs for saving."""
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "base_model_name_or_path": name}, indent=2), encoding="utf-8")


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
