"""Training passes of bounded memory: batches in pieces, and losses from blocks of logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from ... import batches
from ...scoring import models
from ..evaluation.logit_blocks import LogitBlocks

__all__ = ["ACTIVATIONS", "TrainingPasses"]

ACTIVATIONS = 256 * 2**20
"""Bytes of activations, about, that one pass stores for the backward pass on a CPU."""


class TrainingPasses:
    """Divide batches so that a forward and backward pass on each piece needs little memory.

    The gradients of the pieces, added, are those of the batch, up to rounding, where the loss is a sum over tokens
    divided by a given number. A batch whose activations fit is one piece.

    Parameters
    ----------
    model
        The model in training, bare or with PEFT.

    Notes
    -----
    Only on a CPU, where small passes are not slower; and only for models without dropout, whose random numbers would be
    others, and without the loss of routers, which is no sum over tokens. The size of the activations is estimated from
    the weights: of each linear map its input and its output are counted.
    """

    def __init__(self, model: Any, /) -> None:
        self._bare: Any = models.bare(model)
        self._blocks = LogitBlocks(model)
        self._divides = next(model.parameters()).device.type == "cpu" and _is_sum_over_samples(self._bare)
        self._bytes = _activation_bytes(self._bare)

    def pieces(self, batch: Mapping[str, Any], /) -> list[Any]:
        """Return the batch, or parts of it whose activations take about `ACTIVATIONS` each, at least one sample."""
        number, time = batch["input_ids"].shape
        most = max(1, ACTIVATIONS // max(1, self._bytes * time))
        if not self._divides or number <= most:
            return [batch]
        samples = batches.view(batch)
        size = math.ceil(len(samples) / math.ceil(len(samples) / most))
        return [samples.take(part) for part in torch.arange(len(samples)).split(size)]

    def bounded(self, piece: Mapping[str, Any], /) -> AbstractContextManager[None]:
        """Let the model compute its loss on a piece in blocks of logits inside, where these would be large."""
        return self._blocks.training(piece)


def _activation_bytes(model: Any) -> int:
    """Return the bytes that are stored of a token for the backward pass, estimated."""
    head = model.get_output_embeddings()
    return sum(
        sum(parameter.shape[-2:]) * parameter.element_size()
        for module in model.modules()
        if module is not head and not isinstance(module, torch.nn.Embedding)
        for parameter in module._parameters.values()
        if parameter is not None and parameter.ndim > 1
    )


def _is_sum_over_samples(model: Any) -> bool:
    """Return whether a loss is a sum over samples without random numbers."""
    config: Any = getattr(model, "config", None)
    text: Any = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return not (
        getattr(text, "output_router_logits", False)
        or any(_rates(module) for module in model.modules())
        or any("drop" in name and _is_positive(value) for name, value in vars(text).items())
    )


def _rates(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.modules.dropout._DropoutNd) and module.p > 0


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0
