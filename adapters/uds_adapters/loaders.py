"""Descriptions of data loaders, which processes compare so that no two of them draw the same samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["LoaderDescription", "describe"]

_COMPARED = (
    *("num_replicas", "num_processes", "batch_size", "split_batches", "even_batches", "drop_last"),
    *("shuffle", "replacement", "seed", "initial_seed", "epoch"),
)
_PARTS = (("num_replicas", "rank"), ("num_processes", "process_index"))
_MOST = 32  # objects inside a loader, should it make new ones without end


class LoaderDescription(NamedTuple):
    """The text that must be the same on all processes, and the part of the data that this one draws; -1: unknown."""

    text: str = ""
    part: int = -1


def describe(loader: Any, /) -> LoaderDescription:
    """Return the description of a loader that draws a part of its data on each process; an empty one for any other.

    Known are PyTorch's `DistributedSampler`, samplers with its attributes, and the loaders of accelerate, which are
    those of the Trainer. Without such a sampler, each process may have data of its own; and where one process draws the
    batches of all, the loaders of the others do not matter.

    Parameters
    ----------
    loader
        A `DataLoader`, possibly in a wrapper of accelerate; or anything else, such as None.
    """
    if any(kind.__name__ == "DataLoaderDispatcher" for kind in type(loader).__mro__):
        return LoaderDescription()
    found = list(_inside(loader))
    first = next((place for place, one in enumerate(found) if _part(one) >= 0), None)
    if first is None:
        return LoaderDescription()
    synchronized = bool(getattr(loader, "rng_types", None)) and getattr(loader, "synchronized_generator", None)
    number, passes = _length(found), getattr(loader, "iteration", None)
    texts = [f"{number} samples"] if number is not None else []
    texts += [f"pass {passes}"] if isinstance(passes, int) else []
    texts += [text for one in found[first:] if (text := _options(one, seeded=not synchronized))]
    return LoaderDescription(f"data of {', '.join(texts)}; ", _part(found[first]))


def _inside(loader: Any) -> Iterator[Any]:
    """Yield a loader, its samplers, and its data set where that is what draws a part; from the outside in."""
    pending: list[Any] = [loader]
    seen: set[int] = set()
    while pending and len(seen) < _MOST:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [getattr(one, name, None) for name in ("base_dataloader", "batch_sampler", "sampler")]
        data = getattr(one, "dataset", None)
        pending += [other for other in (*inner, data if _part(data) >= 0 else None) if other is not None]


def _part(one: Any) -> int:
    for number, index in _PARTS:
        size, part = getattr(one, number, None), getattr(one, index, None)
        if isinstance(size, int) and isinstance(part, int) and size > 1:
            return part
    return -1


def _length(found: Sequence[Any]) -> int | None:
    """Return the number of samples of the innermost data set that has one."""
    for one in reversed(found):
        for data in (getattr(one, "data_source", None), getattr(one, "dataset", None)):
            try:
                return len(data)  # type: ignore[arg-type] - None has no length either
            except (TypeError, NotImplementedError):  # a stream, or nothing, has no length
                continue
    return None


def _options(one: Any, *, seeded: bool) -> str:
    """Return the options of a sampler that decide on its order, without the seed of a generator unless `seeded`."""
    options = {name: getattr(one, name, None) for name in _COMPARED}
    if options["shuffle"] is False:
        options |= {"seed": None, "epoch": None}
    if _part(one) < 0:
        options["epoch"] = None  # accelerate advances it when a sampler ends, which may be at different times
    generator = getattr(one, "generator", getattr(getattr(one, "dataset", None), "generator", "none"))
    if seeded and options["initial_seed"] is None and not isinstance(generator, str):
        options["seed"] = (torch if generator is None else generator).initial_seed()
    known = ", ".join(f"{name}={value}" for name, value in options.items() if isinstance(value, (int, str)))
    return f"{type(one).__name__}({known})" if known else ""
