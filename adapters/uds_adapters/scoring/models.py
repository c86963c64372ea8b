"""Model wrappers, forward inputs and logits for scoring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = [
    "bare",
    "check_known",
    "eager",
    "head_module",
    "inputs_for",
    "is_compiled",
    "is_encoder_decoder",
    "is_sharded",
    "logits_of",
    "run",
]

_NOT_FOR_SCORING = ("labels", "shift_labels", "num_items_in_batch", "logits_to_keep", "num_logits_to_keep")
_TOKENS = ("input_ids", "inputs_embeds")
_REFUSED = re.compile(r"unexpected keyword argument '(\w+)'")
_PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def eager(model: Any) -> Callable[..., Any]:
    """Return the model without `torch.compile` and data parallelism: hooks set later do not run in compiled graphs."""
    while (inner := _inner(model)) is not None:
        model = inner
    # compiled in place: `_call_impl` is the uncompiled `__call__`, with the hooks of the model itself
    return model if model._compiled_call_impl is None else model._call_impl


def is_compiled(model: Any) -> bool:
    """Return whether the model, or a wrapper of it, runs a compiled graph."""
    while model is not None:
        if "_orig_mod" in model._modules or model._compiled_call_impl is not None:
            return True
        model = _inner(model)
    return False


def bare(model: Any) -> torch.nn.Module:
    """Return the model that has the head and the configuration, without wrappers and PEFT."""
    while True:
        inner = _inner(model)
        if inner is None and hasattr(model, "get_base_model"):
            inner = model.get_base_model()
        if inner is None or inner is model:
            return model
        model = inner


def check_known(model: torch.nn.Module) -> None:
    """Refuse a model whose forward was replaced by untested code: Unsloth, which needs a GPU to load.

    Raises
    ------
    ValueError
        If the bare model's forward is Unsloth's.
    """
    forward = getattr(type(model).forward, "__module__", None) or ""
    if forward.partition(".")[0] in ("unsloth", "unsloth_zoo"):
        msg = (
            f"{type(model).__name__} has a forward of {forward}, which scoring has not been tested with: "
            "load the model with transformers (and PEFT), without importing unsloth"
        )
        raise ValueError(msg)


def head_module(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module that computes logits from hidden states.

    Raises
    ------
    TypeError
        If the model does not name it, or has several.
    """
    getter = getattr(model, "get_output_embeddings", None)
    head = None if getter is None else getter()
    if not isinstance(head, torch.nn.Module) or isinstance(head, torch.nn.ModuleList):
        msg = (
            f"{type(model).__name__} has no output embeddings to catch hidden states at: "
            f"its `get_output_embeddings()` must return the LM head, got {type(head).__name__}. Give it that method, "
            "`model.get_output_embeddings = lambda: model.lm_head`, where `lm_head` is its last linear layer; a policy "
            "such as uds.Random needs none"
        )
        raise TypeError(msg)
    return head


def is_encoder_decoder(model: torch.nn.Module) -> bool:
    """Return whether labels are the decoder's targets."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def is_sharded(model: torch.nn.Module) -> bool:
    """Return whether each process has only a part of the weights (FSDP, ZeRO-3), gathered while a layer runs."""
    # by name, because importing these classes takes a second
    if any(type(module).__name__.startswith(("FSDP", "FullyShardedDataParallel")) for module in model.modules()):
        return True
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def inputs_for(model: torch.nn.Module, inputs: Mapping[str, Any], labels: torch.Tensor | None) -> dict[str, Any]:
    """Return the inputs of the bare model's forward: no labels or cache, and decoder inputs made from labels.

    Entries that the forward does not take are left out: the training step may take them out of its batch, too.

    Raises
    ------
    ValueError
        If an encoder-decoder model has neither decoder inputs nor a way to make them.
    """
    inputs = {name: value for name, value in inputs.items() if name not in _NOT_FOR_SCORING}
    parameters = inspect.signature(model.forward).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        inputs = {name: value for name, value in inputs.items() if name in parameters or name in _TOKENS}
    if "use_mems" in parameters:  # XLNet, which warns about `use_cache`
        inputs["use_mems"] = False
    elif _takes(model, "use_cache"):
        inputs["use_cache"] = False
    given = ("decoder_input_ids", "decoder_inputs_embeds")
    if is_encoder_decoder(model) and all(inputs.get(name) is None for name in given):
        inputs["decoder_input_ids"] = _decoder_input_ids(model, labels)
    return inputs


def run(model: Any, inputs: Mapping[str, Any], /, *, refused: set[str] | None = None) -> Any:
    """Return the output of the model, called without `torch.compile` and data parallelism.

    A forward with ``**kwargs`` may hand them to one that does not take them all. Entries that it refuses by name are
    left out, and added to `refused`, whose names are left out from the start.
    """
    refused = set() if refused is None else refused
    while True:
        try:
            return eager(model)(**{name: value for name, value in inputs.items() if name not in refused})
        except TypeError as error:
            found = _REFUSED.search(str(error))
            if found is None or found[1] in refused or found[1] not in inputs or found[1] in _TOKENS:
                raise
            refused.add(found[1])


def logits_of(output: Any) -> torch.Tensor:
    """Return the logits of a model's output: the entry of that name, or the first (batch, time, vocab) of a tuple.

    Raises
    ------
    TypeError
        If there are none.
    """
    if isinstance(output, torch.Tensor):
        logits = output
    elif isinstance(output, Mapping):
        logits = output.get("logits")
    elif isinstance(output, (tuple, list)):
        logits = next((part for part in output if isinstance(part, torch.Tensor) and part.ndim == 3), None)
    else:
        logits = getattr(output, "logits", None)
    if not isinstance(logits, torch.Tensor):
        names = f" with {sorted(output)}" if isinstance(output, Mapping) else ""
        msg = (
            f"the model returned {type(output).__name__}{names}, without `logits` (batch, time, vocab) to score: "
            "a language model returns them as `output.logits`, as `output['logits']` or first in a tuple"
        )
        raise TypeError(msg)
    return logits


def _inner(model: torch.nn.Module) -> torch.nn.Module | None:
    if "_orig_mod" in model._modules:
        return model._modules["_orig_mod"]
    return model.module if isinstance(model, _PARALLEL) else None


def _takes(model: torch.nn.Module, name: str) -> bool:
    parameters = inspect.signature(model.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _decoder_input_ids(model: Any, labels: torch.Tensor | None) -> torch.Tensor:
    prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    start = getattr(model.config, "decoder_start_token_id", None)
    if labels is None or (prepare is None and start is None):
        msg = (
            f"{type(model).__name__} is an encoder-decoder, and the batch has neither `decoder_input_ids` nor `labels` "
            "to make them from: let the collator add `decoder_input_ids` to the batch"
        )
        raise ValueError(msg)
    if prepare is not None:
        return prepare(labels=labels)
    shifted = torch.nn.functional.pad(labels[:, :-1], (1, 0), value=start)
    return shifted.masked_fill(shifted < 0, model.config.pad_token_id)
