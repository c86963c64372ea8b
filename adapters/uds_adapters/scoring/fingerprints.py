"""Fingerprints of tensors: keys that change when a tensor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["fingerprints"]


def fingerprints(
    tensors: Sequence[torch.Tensor], /, number: torch.Tensor | None = None
) -> tuple[tuple[Any, ...], float | None]:
    """Return a key that changes with the tensors, and `number` on the host, which the device is asked for once.

    The key has version counters, and sums that detect writes by `.data`.
    """
    asked = [_partial_sum(tensor) for tensor in tensors if not tensor.is_meta and _is_whole(tensor)]
    asked += [] if number is None else [number.double()]
    known = iter(torch.stack([one.to(asked[0].device) for one in asked]).tolist() if asked else ())
    key: list[tuple[Any, ...]] = []
    for tensor in tensors:
        if tensor.is_meta:
            key.append(tuple(tensor.shape))  # offloaded, and another object each time
        elif not _is_whole(tensor):
            key.append((id(tensor), tensor._version))
        else:
            key.append((tensor.data_ptr(), tensor._version, tensor.device, next(known)))
    return tuple(key), next(known, None)


def _is_whole(tensor: torch.Tensor) -> bool:
    return type(tensor.detach()) is torch.Tensor


def _partial_sum(tensor: torch.Tensor) -> torch.Tensor:
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1)
    return rows[:: max(1, len(rows) // 64)].double().sum()
