"""Micro-batches of an optimizer step, and micro-batches without a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["StepPlan", "gathering_from", "set_gradients_to_zero", "without_gradient"]


class StepPlan:
    """The micro-batches that a process trains in one optimizer step.

    A Trainer takes a fixed number of micro-batches a step. Where fewer samples than these were chosen, the others are
    empty: they come first, and are skipped. Where other processes have samples for a micro-batch, this one runs the
    `stand_in` at the same time, because it has to take part in what they exchange, and its loss is multiplied by 0.

    Attributes
    ----------
    stand_in
        A batch of one chosen sample; None where this process needs none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: list[tuple[Any, tuple[bool, ...]]] = []
        self.stand_in: Any = None

    def add(self, batches: Sequence[Any], trained_by: Sequence[tuple[bool, ...]], stand_in: Any) -> None:
        """Add the results of one selection."""
        self._rows += zip(batches, trained_by, strict=True)
        # gradients are exchanged with the last micro-batch
        self._rows.sort(key=lambda row: any(row[1]))
        self.stand_in = stand_in if self.stand_in is None else self.stand_in

    @property
    def batches(self) -> list[Any]:
        """The micro-batches of this process, in the order of training."""
        return [batch for batch, _ in self._rows]

    @property
    def nothing_chosen(self) -> bool:
        """Whether no process trains anything in this step."""
        return bool(self._rows) and not any(any(ranks) for _, ranks in self._rows)

    @property
    def divisor(self) -> float | None:
        """Micro-batches with samples, per process: the divisor of losses that are means; None when all have some."""
        total = sum(sum(ranks) for _, ranks in self._rows)
        if total in (0, self._size * len(self._rows)):
            return None
        return total // self._size if total % self._size == 0 else total / self._size

    def trained_by(self, batch: Any) -> tuple[bool, ...]:
        """Return whether each process has samples for this micro-batch; of one from elsewhere, that all have."""
        return next((ranks for one, ranks in self._rows if one is batch), (True,) * self._size)


@contextmanager
def gathering_from(accelerator: Any, trained_by: Sequence[bool]) -> Iterator[None]:
    """Leave out what processes without samples send to `accelerator.gather`: metrics of a stand-in."""
    if all(trained_by) or accelerator.num_processes != len(trained_by):
        yield
        return
    from accelerate.utils import recursively_apply

    def kept(gathered: torch.Tensor) -> torch.Tensor:
        parts = gathered.chunk(len(trained_by))
        return torch.cat([part for part, trained in zip(parts, trained_by, strict=True) if trained])

    gather = accelerator.gather
    with _replaced(accelerator, "gather", lambda data: recursively_apply(kept, gather(data))):
        yield


@contextmanager
def without_gradient(accelerator: Any) -> Iterator[None]:
    """Multiply each loss by 0 before `accelerator.backward`, which processes still call together."""
    backward = accelerator.backward
    with _replaced(accelerator, "backward", lambda loss, **options: backward(loss * 0.0, **options)):
        yield


def set_gradients_to_zero(model: torch.nn.Module, scaler: Any) -> None:
    """Give a gradient of zeros to each parameter in training that has none, as if a `scaler` had scaled a loss of 0."""
    scaler.scale(next(model.parameters()).new_zeros(()))
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


@contextmanager
def _replaced(owner: Any, name: str, function: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
