"""Check that a collator returns a known number of sequences for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import torch

__all__ = ["CheckedCollator"]


class CheckedCollator:
    """A collator that raises an error where it is not known which sequences of its batch are of one example.

    Parameters
    ----------
    collate
        The user's collator. Its attributes are those of this object, too.
    sequences
        Sequences that it must return for each example; 1: any number, each a sample by itself. None: not more than
        there are examples.
    """

    def __init__(self, collate: Any, sequences: int | None) -> None:
        self.collate, self.sequences = collate, sequences

    def __call__(self, examples: Any) -> Any:
        """Return the collator's batch.

        Raises
        ------
        ValueError
            When the batch has another number of sequences.
        """
        number = len(examples) if isinstance(examples, Sized) else 0
        batch = self.collate(examples)
        names = ("input_ids", "inputs_embeds") if isinstance(batch, Mapping) else ()
        first = next((batch[name] for name in names if name in batch), None)
        if number and isinstance(first, torch.Tensor) and first.ndim > 1 and len(first):
            self._check(len(first), number)
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "collate":  # not yet there while an object is copied to a worker
            raise AttributeError(name)
        return getattr(self.collate, name)

    def _check(self, sequences: int, examples: int) -> None:
        wanted = self.sequences
        if wanted is None and sequences > examples:
            msg = (
                f"the collator returned {sequences} sequences for {examples} examples, and it is not known which of "
                "them belong together, so that they cannot be chosen apart. Say it with "
                "selection={'sequences': 2}: the first sequence of every example, then the second of every example, "
                "as TRL's preference collators return pairs; or selection={'sequences': 1}: each is trained by itself"
            )
            raise ValueError(msg)
        if wanted is not None and wanted > 1 and sequences != wanted * examples:
            msg = (
                f"the collator returned {sequences} sequences for {examples} examples, and {wanted} for each were "
                "expected: the first of every example, then the second of every example. Mend the collator, or say "
                "how many there are with selection={'sequences': ...}"
            )
            raise ValueError(msg)
