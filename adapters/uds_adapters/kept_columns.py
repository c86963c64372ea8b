"""Collators that keep columns of the data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any

import torch

__all__ = ["KeptColumns"]


class KeptColumns:
    """A collator whose batches also have columns of the data set that it drops, one entry a sample.

    The Trainers put it around the collator of their training data, for `id_field` and for the columns that a policy
    reads, so that TRL's collator needs nothing. In a loop of your own, give it to the DataLoader.

    Parameters
    ----------
    collator
        From a list of examples to a batch. It gets the examples as they are. Its attributes are those of this object.
    names
        Columns to keep; numbers become a tensor (batch,), other values a list. What the collator keeps itself, and what
        no example has, stays as it is.

    Examples
    --------
    >>> loader = DataLoader(data, batch_size=32, collate_fn=KeptColumns(collator, ["id"]))  # doctest: +SKIP
    """

    def __init__(self, collator: Callable[..., Any], names: Sequence[str], /) -> None:
        self.collator, self.names = collator, tuple(names)

    def __call__(self, examples: Sequence[Any], /, *args: Any, **kwargs: Any) -> Any:
        """Return the collator's batch with the columns."""
        columns = {
            name: [example[name] for example in examples]
            for name in self.names
            if all(isinstance(example, Mapping) and name in example for example in examples)
        }
        batch = self.collator(examples, *args, **kwargs)
        for name, values in columns.items():
            if isinstance(batch, Mapping) and name not in batch:
                batch[name] = _entry(values)  # type: ignore[index]
        return batch

    def __getattr__(self, name: str) -> Any:
        if name == "collator":  # not yet there while an object is copied to a worker
            raise AttributeError(name)
        return getattr(self.collator, name)


def _entry(values: list[Any]) -> Any:
    if all(isinstance(value, (Number, torch.Tensor)) for value in values):
        return torch.stack([torch.as_tensor(value) for value in values])
    return values
