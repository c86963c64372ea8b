"""Scoring passes that end after a given number of decoder layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .layer_probe import LayerProbe, decoder_layers

__all__ = ["Depth"]


class Depth:
    """The first layers of a decoder as the whole of it: the model's last norm and its head follow directly.

    Parameters
    ----------
    model
        The bare model.
    layers
        How many of its decoder layers run.

    Raises
    ------
    TypeError, ValueError
        Where it is no number of layers of this decoder, or the decoder's layers cannot be found.
    """

    def __init__(self, model: torch.nn.Module, layers: int, /) -> None:
        if not isinstance(layers, int) or isinstance(layers, bool):
            msg = f"`depth` must be a number of decoder layers, got {layers!r}"
            raise TypeError(msg)
        self._model, self._layers = model, decoder_layers(model)
        if not 1 <= layers <= len(self._layers):
            msg = (
                f"`depth` must be a number of the {len(self._layers)} decoder layers of {type(model).__name__}, from 1 "
                f"to {len(self._layers)}, got {layers}"
            )
            raise ValueError(msg)
        self.layers = layers
        self._first = torch.nn.ModuleList(list(self._layers)[:layers])
        self._places = [
            (parent._modules, name)
            for parent in model.modules()
            for name, child in parent._modules.items()
            if child is self._layers
        ]
        self._verified = False

    def check_needs(self, policy: Any, /) -> None:
        """Raise where a policy needs what such a pass does not give.

        Raises
        ------
        ValueError
            Where it reads a later layer, or learns from the training pass, which runs all layers.
        """
        later = [number for number in policy.needs.layers if number % len(self._layers) >= self.layers]
        if later:
            msg = f"{type(policy).__name__} reads layer {later[0]}, and with `depth` = {self.layers} it does not run"
            raise ValueError(msg)
        if policy.needs.training_pass:
            msg = (
                f"{type(policy).__name__} learns from scores of the training pass, which runs all layers: they cannot "
                f"be compared with those at `depth` = {self.layers}; leave `depth` None"
            )
            raise ValueError(msg)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Run only the first layers in the passes inside.

        Raises
        ------
        ValueError
            Where other layers ran in the pass, or these did not run once each.
        """
        calls: list[int] = []
        hooks = [
            layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
            for number, layer in enumerate(self._layers)
        ]
        for modules, name in self._places:
            modules[name] = self._first
        try:
            yield
        finally:
            for modules, name in self._places:
                modules[name] = self._layers
            for hook in hooks:
                hook.remove()
        if calls != list(range(self.layers)):
            raise ValueError(self._refusal(f"of its layers {calls or 'none'} ran, counted from 0"))

    def verify(self, forward: Callable[[], Any], /) -> None:
        """Compare, once, the last layer's output with that in a whole pass; `forward` makes a pass.

        Raises
        ------
        ValueError
            Where the decoder does not run without its other layers, or its first layers then compute something else.
        """
        if self._verified:
            return
        last = self.layers - 1
        with LayerProbe(self._model, (last,)) as whole:
            forward()
        probe = LayerProbe(self._model, (last,))
        try:
            with probe, self.applied():
                forward()
        except (IndexError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(self._refusal(f"it does not run: {error}")) from error
        if last not in whole.states or last not in probe.states:
            raise ValueError(self._refusal("the output of its layers is not seen (is the model compiled?)"))
        if not torch.allclose(whole.states[last].float(), probe.states[last].float(), rtol=1e-3, atol=1e-5):
            raise ValueError(self._refusal(f"layer {last} then computes something else"))
        self._verified = True

    def _refusal(self, cause: str) -> str:
        return (
            f"`depth` = {self.layers}: the decoder of {type(self._model).__name__} cannot end after {self.layers} of "
            f"its {len(self._layers)} layers: {cause}. Score at its full depth, with `depth` None"
        )
