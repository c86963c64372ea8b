"""Products of samples' gradients in the layers that train, LoRA's above all: one backward pass that leaves no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

import uds_core as uds

from .. import batches
from . import models
from .head_probe import undisturbed
from .scorer import HeadProbe, outside_autocast
from .validation import ValidationScorer

__all__ = ["LayerGradientScorer"]


class LayerGradientScorer(ValidationScorer):
    """For `uds.GREATS` where the head is frozen: products of gradients in all linear layers that train.

    Parameters
    ----------
    model, validation, **options
        As of `ValidationScorer`.

    Notes
    -----
    The gradients are those of each sample's mean loss, in the weights of all `torch.nn.Linear` that train and are not
    the head: the A and B of LoRA. Nothing else counts: no biases, embeddings or norms, nor what uses a weight without
    running its layer (DoRA's magnitudes). Each sample's inputs of a layer and gradients of its output are kept until
    the products are taken, so that no weight's gradient is asked for, and none that was accumulated changes.

    One pass forwards and backwards of all candidates in one piece, and of the validation batch, in evaluation mode and
    without gradient checkpointing. No logits are made: the gradient in the hidden states comes from the core.
    """

    def examine(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """The policy's features of all samples, in their order."""
        self._reader.refresh()
        validation = batches.view(self.validation_batch(), shift=self.shift)
        with undisturbed(self.model):
            mine, theirs = self._seen(samples), self._seen(validation)
        used = [name for name in mine if name in theirs]
        layers, others = ([side[name] for name in used] for side in (mine, theirs))
        with outside_autocast(layers[0][0]):
            return policy.examine(
                uds.Candidates(
                    None,
                    mask=samples.mask,
                    labels=samples.labels,
                    products=uds.layer_products(layers),
                    validation_products=uds.layer_products(layers, others),
                )
            )

    def _seen(self, samples: batches.SampleView) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Of each layer that the samples' losses depend on: what went in, and the gradients of what came out."""
        inputs = models.inputs_for(self._bare, samples.inputs, samples.labels)
        probe = HeadProbe(self._reader.module, torch.no_grad()(self._reader.linear))
        with torch.enable_grad(), probe, _recorded(self._layers()) as calls:
            logits = self._forward(inputs)
            hidden = None if probe.hidden is None else samples.arrange(probe.hidden)
        explained = None if hidden is None else self._reader.explain(probe.seen, logits.detach())
        if hidden is None or explained is None or explained.cap is not None:
            msg = (
                f"the logits of {type(self._bare).__name__} are not those of a linear head that could be read: "
                "give uds.GREATS a `ValidationScorer`, or choose another policy"
            )
            raise TypeError(msg)
        if not calls:
            msg = "no layer that trains was seen to run: is the part of the model compiled that has them in it?"
            raise TypeError(msg)
        with outside_autocast(hidden):
            back = self._back(explained.head(hidden.detach()), samples)
        outputs = [output for name in calls for _, output in calls[name]]
        gradients = iter(torch.autograd.grad(hidden, outputs, back.to(hidden.dtype), allow_unused=True))
        seen = {}
        for name, pairs in calls.items():
            parts = [(put, next(gradients)) for put, _ in pairs]
            parts = [(put, gradient) for put, gradient in parts if gradient is not None]
            if parts:  # a layer that ran several times is one with longer samples
                seen[name] = tuple(torch.cat([_of(samples, x, name) for x in xs], 1) for xs in zip(*parts, strict=True))
        return seen

    def _back(self, logits: Any, samples: batches.SampleView) -> torch.Tensor:
        """Gradients of the samples' mean losses in their hidden states."""
        if samples.labels is None:
            msg = "gradients need `labels`, and the batch came without them"
            raise ValueError(msg)
        mask, labels = (None if x is None else x.to(logits.like.device) for x in (samples.mask, samples.labels))
        return uds.HeadGradients(logits, labels, mask=mask).in_hidden()

    def _layers(self) -> dict[str, torch.nn.Linear]:
        head = self._reader.module
        layers = {
            name: module
            for name, module in self._bare.named_modules()
            if isinstance(module, torch.nn.Linear) and module.weight.requires_grad and module is not head
        }
        if not layers:
            msg = "the model has no linear layer that trains: put LoRA on it, or give uds.GREATS a `ValidationScorer`"
            raise ValueError(msg)
        return layers


@contextlib.contextmanager
def _recorded(layers: dict[str, torch.nn.Linear]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """While entered: what goes into the layers and what comes out, by name, in the order in which they run."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def keeping(name: str) -> Any:
        def keep(_module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            calls.setdefault(name, []).append((args[0].detach(), output))

        return keep

    hooks = [module.register_forward_hook(keeping(name)) for name, module in layers.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _of(samples: batches.SampleView, x: torch.Tensor, name: str) -> torch.Tensor:
    """(batch, time, width), one entry for each sample."""
    if x.ndim == 3:
        x = x if x.shape[0] == len(samples) else samples.arrange(x)
    if x.ndim != 3 or x.shape[0] != len(samples):
        msg = (
            f"layer {name!r} sees {tuple(x.shape)}, in which {len(samples)} samples cannot be told apart (an expert of "
            "a mixture?): give uds.GREATS a `ValidationScorer`"
        )
        raise TypeError(msg)
    return x
