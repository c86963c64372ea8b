"""Order of the candidates, which the seed alone decides."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

from torch.utils.data import Sampler

__all__ = ["CandidateOrder"]


class CandidateOrder(Sampler[int]):
    """Indices of candidates: one permutation an epoch, each cut to whole steps.

    No step holds a sample twice, and all policies see the same candidates in each step. In place of
    `torch.utils.data.RandomSampler` because of two promises: the order for a seed is that of the published runs, and a
    resumed run asks for epoch n without the generator's state in the epochs before it.

    Parameters
    ----------
    examples
        Number of training examples, at least `batch_size`.
    batch_size
        Candidates a step.
    seed
        Seed of the permutations.
    """

    def __init__(self, examples: int, /, *, batch_size: int, seed: int) -> None:
        self.examples = examples
        self._size = examples - examples % batch_size
        self._generator = random.Random(seed)
        self._permutations: list[array[int]] = []
        self._epoch = 0

    def set_epoch(self, epoch: int, /) -> None:
        """Let the next iteration yield the permutation of `epoch`; the Trainer calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of candidates in one epoch."""
        return self._size

    def __iter__(self) -> Iterator[int]:
        """Yield the candidates of the current epoch."""
        return iter(self._permutation(self._epoch))

    def first(self, number: int, /) -> list[int]:
        """Return the first `number` candidates, over as many epochs as that takes."""
        epochs = -(-number // self._size)
        return [index for epoch in range(epochs) for index in self._permutation(epoch)][:number]

    def _permutation(self, epoch: int) -> array[int]:
        while len(self._permutations) <= epoch:
            drawn = self._generator.sample(range(self.examples), self.examples)
            self._permutations.append(array("q", drawn[: self._size]))  # a quarter of a list's memory
        return self._permutations[epoch]
