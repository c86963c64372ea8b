"""In which order the candidates come: by the seed alone, so that all policies see the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import torch

__all__ = ["CandidateOrder", "Ordered"]

T = TypeVar("T")


class CandidateOrder:
    """Indices of candidates, one batch after the other, without an end.

    Permutation after permutation, each cut to whole batches, so that no batch holds a sample twice.

    Parameters
    ----------
    examples
        Number of training examples, at least `batch_size`.
    batch_size
        Candidates a step.
    seed
        Of the permutations.
    """

    def __init__(self, examples: int, /, *, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size = examples, batch_size
        self.epoch = examples - examples % batch_size
        self._generator = random.Random(seed)
        self._drawn: list[int] = []

    def __getitem__(self, place: int, /) -> int:
        """The candidate at `place`; permutations are drawn when they are needed."""
        while len(self._drawn) <= place:
            self._drawn += self._generator.sample(range(self.examples), self.examples)[: self.epoch]
        return self._drawn[place]

    def first(self, number: int, /) -> list[int]:
        """The first so many."""
        return [self[place] for place in range(number)]


class Ordered(torch.utils.data.Dataset[T]):
    """A data set of so many candidates, in their order.

    Parameters
    ----------
    data
        The training examples.
    order
        Of the candidates.
    length
        How many there may be; they are looked up one by one.
    """

    def __init__(self, data: Sequence[T], order: CandidateOrder, *, length: int) -> None:
        self.data, self.order, self.length = data, order, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> T:
        return self.data[self.order[place]]
