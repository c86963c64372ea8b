"""Models and tokenizers from local folders, for full or LoRA fine-tuning; nothing is downloaded."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from .errors import LabError
from .storage import check_model

__all__ = [
    "Saved",
    "context",
    "load_model",
    "load_tokenizer",
    "quiet",
    "save",
    "trainable",
    "with_adapter",
    "with_lora",
]


def load_model(folder: Path, /) -> Any:
    """The causal language model in `folder`, its weights in float32."""
    check_model(folder)
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"{folder} holds no causal language model that transformers can load: {_first_line(error)}"
        raise LabError(msg) from error


def load_tokenizer(folder: Path, /) -> Any:
    """The tokenizer in `folder`."""
    check_model(folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"{folder} holds no tokenizer that transformers can load: {_first_line(error)}"
        raise LabError(msg) from error


def context(folder: Path, /) -> int | None:
    """The most tokens that the model in `folder` has positions for; None where its configuration does not say."""
    check_model(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"{folder} holds no configuration that transformers can read: {_first_line(error)}"
        raise LabError(msg) from error
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def with_lora(model: Any, /, *, rank: int, seed: int) -> Any:
    """`model` with low-rank adapters on all its linear layers but the head; only they train.

    Their first values depend on `seed` alone, and the global generator is left as it was.
    """
    import peft

    if rank < 1:
        msg = f"`lora_rank` must be at least 1, got {rank}"
        raise LabError(msg)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def with_adapter(model: Any, folder: Path, /) -> Any:
    """`model` with the adapters that PEFT saved in `folder`."""
    import peft

    if not (folder / "adapter_config.json").is_file():
        msg = f"{folder} holds no adapter_config.json: `--adapter` takes adapters, as `uds train --lora` saves them"
        raise LabError(msg)
    try:
        return peft.PeftModel.from_pretrained(model, folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"the adapters in {folder} do not fit the model: {_first_line(error)}"
        raise LabError(msg) from error


def trainable(model: Any, /) -> tuple[int, int]:
    """Parameters that train, and all."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines, progress bars and notices on future versions of transformers; as before afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What was saved, and where."""

    kind: Literal["adapters", "model"]
    folder: Path
    base: Path
    """The model that training began with, which adapters need."""
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
    target, unfinished = folder / kind, folder / f"{kind}.tmp"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.replace(target)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        msg = f"the {kind} could not be saved in {target}: {error}"
        raise LabError(msg) from error
    trained = [p.numel() for p in model.parameters() if kind == "model" or p.requires_grad]
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    return Saved(kind=kind, folder=target, base=base, parameters=sum(trained), size=size)


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
