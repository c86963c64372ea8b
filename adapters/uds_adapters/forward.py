"""The scoring forward: one pass without gradients from which the policy's candidates come, leaving no trace."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

import uds_core as uds

from . import batches

__all__ = ["HeadProbe", "Scorer", "evaluating", "outside_autocast"]

_NOT_FOR_SCORING = ("labels", "shift_labels", "num_items_in_batch")
_SCALES = ("logit_scale", "lm_head_multiplier", "logits_scaling", "output_multiplier")


class Scorer:
    """Candidates from a model: hidden states caught at its head, which is verified in every pass.

    Parameters
    ----------
    model
        A causal language model with `get_output_embeddings`, bare or in a wrapper (PEFT, DDP, `torch.compile`).

    Notes
    -----
    The pass runs in evaluation mode (each module's own flag restored), without gradients, cache, labels or use of any
    random generator. The head sees one position only, so no logits are made; where the head's weight does not explain
    the logits of that position (LoRA on the head, soft-capping), a second pass makes the real logits, with one warning.
    A frozen head is prepared once. One that trains, or was loaded anew, is prepared for each pass.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        bare = _bare(model)
        self._head_module = _head_module(bare)
        self._config = getattr(bare, "config", None)
        if getattr(self._config, "is_encoder_decoder", False):
            msg = "encoder-decoder models are not supported: their decoder needs the labels that scoring leaves out"
            raise ValueError(msg)
        self._frozen: uds.Head | None = None
        self._frozen_key: tuple[Any, ...] | None = None
        self._warned = False

    def __call__(self, batch: Mapping[str, Any], /) -> uds.Candidates:
        """The candidates of a batch, with next-token labels; one forward pass."""
        batches.size(batch)
        inputs = {name: value for name, value in batch.items() if name not in _NOT_FOR_SCORING}
        inputs["use_cache"] = False
        labels, mask = batches.shifted_labels(batch), batch.get("attention_mask")
        tokens = batch["input_ids"] if "input_ids" in batch else batch["inputs_embeds"]
        with torch.no_grad(), evaluating(self.model):
            logits = self._logits(inputs, tokens.shape[1])
        torch.clear_autocast_cache()  # older torch would hand the weights cast without gradients to the training pass
        return uds.Candidates(logits, mask=mask, labels=labels)

    def _logits(self, inputs: dict[str, Any], time: int) -> Any:
        """Logits of the last `time` rows, the batch's own: prompt tuning puts virtual tokens before them."""
        model = _eager(self.model)
        with HeadProbe(self._head_module) as probe:
            logits = model(**inputs)["logits"]
        if probe.hidden is None:
            self._warn("the head's hook did not run (a compiled model?)")
            return logits[:, -time:]
        head = self._explaining(probe, logits)
        if head is not None:
            return head(probe.hidden[:, -time:])
        self._warn("the head's weight does not explain the model's logits (LoRA on the head? soft-capping? quantised?)")
        return model(**inputs)["logits"][:, -time:]

    def _explaining(self, probe: HeadProbe, logits: torch.Tensor) -> uds.Head | None:
        """The head under the hypothesis about its scale that gives the logits of the first position, if one does."""
        module, hidden = self._head_module, probe.hidden
        weight = getattr(module, "weight", None)
        if weight is None or hidden is None or hidden.ndim != 3 or weight.shape[-1] != hidden.shape[-1]:
            return None
        if not weight.is_floating_point():
            return None  # quantised: its numbers are not the layer's
        if getattr(self._config, "final_logit_softcapping", None):
            return None  # in half precision, capping of small logits looks like rounding
        bias = getattr(module, "bias", None)
        with outside_autocast(hidden):
            product = torch.nn.functional.linear(hidden[:, :1].to(weight.dtype), weight, bias)
            errors = {scale: _error(product.float() * scale, logits[:, :1].float()) for scale in self._scales()}
        scale = min(errors, key=errors.__getitem__)
        coarsest = max(
            torch.finfo(dtype).eps for dtype in (product.dtype, logits.dtype, probe.autocast or logits.dtype)
        )
        return self._head(weight.detach(), scale) if errors[scale] <= max(4 * coarsest, 1e-4) else None

    def _head(self, weight: torch.Tensor, scale: float) -> uds.Head:
        bias = getattr(self._head_module, "bias", None)
        bias = None if bias is None else bias.detach()
        if any(parameter.requires_grad for parameter in self._head_module.parameters()):
            return uds.Head(weight, bias, scale, frozen=False)
        # a version counter sees a weight loaded anew, but not what is written through `.data`: some rows tell of that
        some = weight[:: max(1, weight.shape[0] // 64)].double().sum().item()
        key = (scale, some, *((t.data_ptr(), t._version, t.device) for t in (weight, bias) if t is not None))
        if self._frozen is None or self._frozen_key != key:
            self._frozen, self._frozen_key = uds.Head(weight, bias, scale), key
        return self._frozen

    def _scales(self) -> Iterator[float]:
        """Hypotheses, none trusted: configurations use the same name in opposite senses, or not at all."""
        yield 1.0
        for name in _SCALES:
            value = getattr(self._config, name, None)
            if isinstance(value, (int, float)) and value not in (0, 1):
                yield float(value)
                yield 1.0 / value

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{reason}: scores come from the full logits, which are right but slower and need their memory",
                stacklevel=4,
            )


class HeadProbe:
    """While entered: keeps what goes into `head` as `hidden`, and hands the head its first position only.

    `autocast` is the dtype that the head computes in, where autocast says so: its output may be cast back afterwards.
    """

    def __init__(self, head: torch.nn.Module) -> None:
        self.head = head
        self.hidden: torch.Tensor | None = None
        self.autocast: torch.dtype | None = None

    def __enter__(self) -> HeadProbe:
        self._hook = self.head.register_forward_pre_hook(self._keep, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _keep(self, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        hidden = args[0] if args else kwargs["input"]
        self.hidden, first = hidden, hidden[:, :1]
        kind = hidden.device.type
        self.autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return ((first, *args[1:]), kwargs) if args else (args, {**kwargs, "input": first})


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is as it was, also those that were in evaluation mode before."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def outside_autocast(like: torch.Tensor) -> Iterator[None]:
    """For arithmetic on scores: without gradients, and in the dtypes that it asks for."""
    with torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield


def _error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference where `expected` is finite, in units of its largest entry."""
    if got.shape != expected.shape:
        return float("inf")
    finite = torch.isfinite(expected)
    differences = torch.where(finite, got - expected, 0.0).abs().max()
    return float(differences / torch.where(finite, expected, 0.0).abs().max().clamp(min=1e-12))


def _bare(model: torch.nn.Module) -> torch.nn.Module:
    # wrappers of torch keep the model under one of two names
    while True:
        inner = getattr(model, "_orig_mod", None) or (
            model.module
            if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel))
            else None
        )
        if inner is None:
            return model
        model = inner


def _eager(model: torch.nn.Module) -> torch.nn.Module:
    # hooks set after compilation do not run in the compiled module
    return getattr(model, "_orig_mod", model)


def _head_module(model: torch.nn.Module) -> torch.nn.Module:
    find = getattr(model, "get_output_embeddings", None)
    head = None if find is None else find()
    if head is None:
        msg = (
            f"{type(model).__name__} has no output embeddings to catch hidden states at: "
            "its `get_output_embeddings()` must return the LM head"
        )
        raise TypeError(msg)
    return head
