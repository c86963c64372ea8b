"""How many cores a computation on the CPU takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["threads"]


@contextlib.contextmanager
def threads(number: int | None, /) -> Iterator[None]:
    """At most `number` threads for an operation; None: as it is. As before afterwards.

    Threads that wait for each other on a machine that is busy elsewhere can slow small models down tenfold; one thread
    cannot.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
