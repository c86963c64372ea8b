"""Models and tokenizers from local folders, for full or LoRA fine-tuning; nothing is downloaded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from .errors import LabError
from .paths import check_model

__all__ = ["context", "load_model", "load_tokenizer", "quiet", "trainable", "with_adapter", "with_lora"]


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
