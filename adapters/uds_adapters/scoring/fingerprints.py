"""Fingerprints of tensors: keys that change when a tensor does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["fingerprints", "partial_sums"]


def partial_sums(tensors: Sequence[torch.Tensor], /) -> dict[str, torch.Tensor]:
    """Return sums that detect writes by `.data`, on the tensors' devices; of those that have values here."""
    numbered = enumerate(tensors)
    return {f"sum {i}": _partial_sum(x) for i, x in numbered if not x.is_meta and _is_whole(x)}


def fingerprints(tensors: Sequence[torch.Tensor], sums: Mapping[str, torch.Tensor], /) -> tuple[Any, ...]:
    """Return a key that changes with the tensors: of version counters and their `partial_sums`, on the host."""
    key: list[tuple[Any, ...]] = []
    for i, tensor in enumerate(tensors):
        if tensor.is_meta:
            key.append(tuple(tensor.shape))  # offloaded, and another object each time
        elif not _is_whole(tensor):
            key.append((id(tensor), tensor._version))
        else:
            key.append((tensor.data_ptr(), tensor._version, tensor.device, float(sums[f"sum {i}"])))
    return tuple(key)


def _is_whole(tensor: torch.Tensor) -> bool:
    return type(tensor.detach()) is torch.Tensor


def _partial_sum(tensor: torch.Tensor) -> torch.Tensor:
    rows = tensor.detach().reshape(len(tensor) if tensor.ndim else 1, -1)
    return rows[:: max(1, len(rows) // 64)].double().sum()
