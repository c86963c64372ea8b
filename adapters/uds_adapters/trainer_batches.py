"""Batches of a Trainer: sequences of each example, and changes after the selection."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["ChosenIds", "check_batch", "known_sequences"]

_PAIRS = ("DPOTrainer", "RewardTrainer")  # TRL's, whose losses compare the halves of a batch


def known_sequences(trainer: Any, /) -> int | None:
    """Return how many sequences of each example the loss of a trainer of TRL compares; None for other trainers."""
    names = {cls.__name__ for cls in type(trainer).__mro__ if cls.__module__.partition(".")[0] == "trl"}
    if names.intersection(_PAIRS):
        return 2
    if "TPOTrainer" in names:
        return 3 if getattr(trainer, "tpo_alpha", 1.0) != 0.0 else 2
    return None


def check_batch(trainer: Any, batch: Any, /) -> None:
    """Raise where the loader's batches are examples, from which the trainer makes its own batches later.

    Raises
    ------
    TypeError
        When the batch is no mapping.
    """
    if not isinstance(batch, Mapping):
        msg = (
            f"the loader of {type(trainer).__name__} returns a {type(batch).__name__} and no mapping of tensors: "
            "trainers that generate their sequences (GRPO, RLOO) make a batch after it was read, and a policy cannot "
            "select from it. Let the collator return a mapping, or use a trainer that is given its sequences"
        )
        raise TypeError(msg)


class ChosenIds:
    """Warn where a trainer changes the token ids of the first chosen batch before its loss."""

    def __init__(self) -> None:
        self._done = False
        self._given: Any = None

    def store(self, inputs: Any, /) -> None:
        """Store the ids of a batch as it was chosen."""
        if not self._done:
            self._given = inputs.get("input_ids")

    def compare(self, inputs: Any, /) -> None:
        """Compare them with those that the loss is given."""
        given, self._given = self._given, None
        if given is None:
            return
        self._done = True
        now = inputs.get("input_ids")
        if now is given or now is None or (now.shape == given.shape and bool(torch.equal(now, given))):
            return
        warnings.warn(
            "the token ids of a batch are changed after its samples were chosen (in `_prepare_inputs`, or in a "
            "`compute_loss`), so their scores are those of the ids before: make the change in the data collator",
            stacklevel=2,
        )
