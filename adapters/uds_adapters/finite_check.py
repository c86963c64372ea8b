"""Warnings of losses and weights that are not finite."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import TrainerCallback

__all__ = ["finite_check"]


def finite_check() -> TrainerCallback:
    """Return a callback of the Trainer that warns, once a run, when a step's loss or its weights are not finite.

    `callback.losses` receives the loss of each micro-batch. One pass over the weights, and one reading from the
    device, a step.
    """
    from transformers import TrainerCallback

    class FiniteCheck(TrainerCallback):
        """Check each step's losses and weights."""

        def __init__(self) -> None:
            self.losses: list[torch.Tensor] = []
            self._warned: set[str] = set()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.losses, self._warned = [], set()

        def on_optimizer_step(
            self,
            args: Any,  # noqa: ARG002
            state: Any,
            control: Any,  # noqa: ARG002
            model: Any = None,
            **_: Any,
        ) -> None:
            losses, self.losses = self.losses, []
            if len(self._warned) == 2 or _all_finite(losses, model):
                return
            step = state.global_step + 1
            if not all(bool(torch.isfinite(loss).all()) for loss in losses):
                self._warn("loss", f"the loss of step {step} is not finite: look at its inputs and the learning rate")
            names = [name for name, weight in _weights(model) if not bool(torch.isfinite(weight).all())]
            if names:
                self._warn(
                    "weights",
                    f"after step {step} {len(names)} weights of the model are not finite, such as {names[0]!r}: stop, "
                    "and resume from an earlier checkpoint with a smaller learning rate, or clipped gradients "
                    "(`max_grad_norm`)",
                )

        def _warn(self, what: str, message: str) -> None:
            if what not in self._warned:
                self._warned.add(what)
                warnings.warn(message, stacklevel=2)

    return FiniteCheck()


def _all_finite(losses: list[torch.Tensor], model: torch.nn.Module) -> bool:
    weights = [weight for _, weight in _weights(model)]
    total = torch.stack([loss.float().sum() for loss in losses]).sum() if losses else torch.zeros(())
    if weights:  # the largest absolute value cannot overflow
        total = total + torch.nn.utils.get_total_norm(weights, norm_type=math.inf).float().to(total.device)
    return bool(torch.isfinite(total))


def _weights(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return names and values of the weights in training; of sharded ones this process's part."""
    named: list[Any] = [(name, weight.detach()) for name, weight in model.named_parameters() if weight.requires_grad]
    local = [(name, weight.to_local() if hasattr(weight, "to_local") else weight) for name, weight in named]
    return [(name, weight) for name, weight in local if weight.numel()]
