"""Outputs of decoder layers, caught in a forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["LayerProbe", "decoder_layers"]

_NUMBERS = ("num_hidden_layers", "num_decoder_layers", "decoder_layers", "n_layer", "num_layers")


class LayerProbe:
    """Keep what some decoder layers put out while entered.

    Parameters
    ----------
    model
        The bare model.
    numbers
        The layers, counted from 0; negative ones from the end. None: nothing is looked for.

    Attributes
    ----------
    states
        Number as it was given -> output (batch, time, width) of that layer in the last pass.

    Raises
    ------
    ValueError
        Where the model has no such layer, or its layers cannot be found.
    """

    def __init__(self, model: torch.nn.Module, numbers: Sequence[int] = ()) -> None:
        self.states: dict[int, torch.Tensor] = {}
        self._hooks: list[Any] = []
        self._layers: dict[int, torch.nn.Module] = {}
        if numbers:
            layers = decoder_layers(model)
            for number in numbers:
                if not -len(layers) <= number < len(layers):
                    msg = (
                        f"the policy reads layer {number}, but {type(model).__name__} has {len(layers)} decoder "
                        f"layers, 0 to {len(layers) - 1}: name one of these in the policy's `needs`"
                    )
                    raise ValueError(msg)
                self._layers[number] = layers[number]

    def __enter__(self) -> LayerProbe:
        for number, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._keeper(number)))
        return self

    def __exit__(self, *_: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _keeper(self, number: int) -> Any:
        def keep(_module: torch.nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            self.states[number] = output if isinstance(output, torch.Tensor) else output[0]

        return keep


def decoder_layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    """Return the list of the decoder's layers: the outermost one as long as the configuration says.

    Raises
    ------
    ValueError
        Where there is none.
    """
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    lengths = {getattr(config, name, None) for name in _NUMBERS}
    find = getattr(model, "get_decoder", None)
    decoder = find() if callable(find) else None
    decoder = decoder if isinstance(decoder, torch.nn.Module) else model
    found = [
        (name.count("."), module)
        for name, module in decoder.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) in lengths
    ]
    outermost = [module for depth, module in found if depth == min(depth for depth, _ in found)]
    if len(outermost) != 1:
        msg = (
            f"the decoder layers of {type(model).__name__} cannot be found: expected one `torch.nn.ModuleList` as long "
            "as the number of layers in its configuration; choose a policy that reads no layers"
        )
        raise ValueError(msg)
    return outermost[0]
