"""Fingerprints of tensors: keys that change when a tensor does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["fingerprints", "is_plain", "partial_sums"]


def partial_sums(tensors: Sequence[torch.Tensor], /) -> list[torch.Tensor]:
    """Return sums that detect writes by `.data`, on the tensors' devices; of those that have values here."""
    return [_partial_sum(tensor) for tensor in tensors if not tensor.is_meta and _is_whole(tensor)]


def fingerprints(tensors: Sequence[torch.Tensor], sums: Sequence[float], /) -> tuple[Any, ...]:
    """Return a key that changes with the tensors: of version counters and their `partial_sums`, on the host."""
    known, key = iter(sums), list[tuple[Any, ...]]()
    for tensor in tensors:
        if tensor.is_meta:
            key.append(tuple(tensor.shape))  # offloaded, and another object each time
        elif not _is_whole(tensor):
            key.append((id(tensor), tensor._version))
        else:
            key.append((tensor.data_ptr(), tensor._version, tensor.device, next(known)))
    return tuple(key)


def is_plain(tensor: Any) -> bool:
    """Return whether a tensor stores its values directly: not quantised, sharded or offloaded."""
    if not isinstance(tensor, torch.Tensor) or tensor.is_meta or not tensor.is_floating_point():
        return False
    return type(tensor.detach()) is torch.Tensor and tensor.numel() > 0


def _is_whole(tensor: torch.Tensor) -> bool:
    return type(tensor.detach()) is torch.Tensor


def _partial_sum(tensor: torch.Tensor) -> torch.Tensor:
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1)
    return rows[:: max(1, len(rows) // 64)].double().sum()
