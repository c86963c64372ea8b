"""Gradient products of samples in trainable linear layers, such as LoRA, from one backward pass."""

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
    """A scorer for `uds.GREATS` with a frozen head: gradient products in all trainable linear layers.

    Parameters
    ----------
    model, validation, **options
        As of `ValidationScorer`.

    Notes
    -----
    The gradients are those of each sample's mean loss, with respect to the weights of all trainable `torch.nn.Linear`
    except the head, such as A and B of LoRA. Not included: biases, embeddings, norms, and weights used without running
    their layer (DoRA's magnitudes). Each layer's inputs and output gradients are stored until the products are
    computed, so weight gradients are never computed, and accumulated ones do not change.

    Cost: one forward and backward pass of all candidates together, and one of the validation batch, in evaluation mode
    and without gradient checkpointing. No logits are made: `uds_core` computes the gradient of the hidden states.
    """

    def examine(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """Return the policy's features of all samples, in order."""
        if self.depth is not None:
            msg = f"LayerGradientScorer goes back through all layers: `depth` must be None, got {self.depth}"
            raise ValueError(msg)
        self._refresh()
        validation = self.view(self.validation_batch())
        with undisturbed(self.model):
            ours, theirs = self._layer_inputs(samples), self._layer_inputs(validation)
        shared = [name for name in ours if name in theirs]
        layers, validation_layers = ([side[name] for name in shared] for side in (ours, theirs))
        with outside_autocast(layers[0][0]):
            return policy.examine(
                uds.Candidates(
                    None,
                    mask=samples.mask,
                    labels=samples.labels,
                    products=uds.layer_products(layers),
                    validation_products=uds.layer_products(layers, validation_layers),
                )
            )

    def _layer_inputs(self, samples: batches.SampleView) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return inputs and output gradients, by name, of the layers that the samples' losses depend on."""
        inputs = models.inputs_for(self._bare, samples.inputs, samples.labels)
        probe = HeadProbe(self._reader.module, torch.no_grad()(self._reader.linear))
        with torch.enable_grad(), probe, _recorded(self._layers()) as calls:
            logits = self._forward(inputs)
            hidden = None if probe.hidden is None else samples.arrange(probe.hidden)
        explained = None if hidden is None else self._reader.explain(probe.result, logits.detach())
        if hidden is None or explained is None or explained.cap is not None:
            msg = (
                f"the logits of {type(self._bare).__name__} do not come from a linear head, which this scorer "
                "needs: give uds.GREATS a `ValidationScorer`, or use another policy"
            )
            raise TypeError(msg)
        if not calls:
            msg = (
                "no hook of a trainable layer ran, possibly because a part of the model is compiled: do not compile it"
            )
            raise TypeError(msg)
        with outside_autocast(hidden):
            back = self._back(explained.head(hidden.detach()), samples)
        outputs = [output for name in calls for _, output in calls[name]]
        gradients = iter(torch.autograd.grad(hidden, outputs, back.to(hidden.dtype), allow_unused=True))
        layers = {}
        for name, pairs in calls.items():
            parts = [(put, next(gradients)) for put, _ in pairs]
            parts = [(put, gradient) for put, gradient in parts if gradient is not None]
            if parts:  # several runs of one layer count as one with longer samples
                layers[name] = tuple(
                    torch.cat([_of(samples, x, name) for x in xs], 1) for xs in zip(*parts, strict=True)
                )
        return layers

    def _back(self, logits: Any, samples: batches.SampleView) -> torch.Tensor:
        """Return the gradients of the samples' mean losses with respect to their hidden states."""
        if samples.labels is None:
            msg = "gradients need `labels`, but the batch has none: add them in the collator"
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
            msg = "the model has no trainable linear layer: add LoRA, or give uds.GREATS a `ValidationScorer`"
            raise ValueError(msg)
        return layers


@contextlib.contextmanager
def _recorded(layers: dict[str, torch.nn.Linear]) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Record inputs and outputs of the layers while entered, by name, in the order in which they run."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def recorder(name: str) -> Any:
        def record(_module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            calls.setdefault(name, []).append((args[0].detach(), output))

        return record

    hooks = [module.register_forward_hook(recorder(name)) for name, module in layers.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _of(samples: batches.SampleView, x: torch.Tensor, name: str) -> torch.Tensor:
    """Return `x` as (samples, time, width)."""
    if x.ndim == 3:
        x = x if x.shape[0] == len(samples) else samples.arrange(x)
    if x.ndim != 3 or x.shape[0] != len(samples):
        msg = (
            f"layer {name!r} received {tuple(x.shape)}, which cannot be split into {len(samples)} samples (is it an "
            "expert of a mixture?): give uds.GREATS a `ValidationScorer`"
        )
        raise TypeError(msg)
    return x
