"""A trained model on disk, and words for what it is: all weights, or adapters alone. Nothing is merged."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import LabError

__all__ = ["Saved", "save"]


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
