"""Copies of tensors on the host, of several parts of a step in one transfer."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..batches.entries import on_host

__all__ = ["HostCopies"]


class HostCopies:
    """Tensors that the host will read, until any part of the step reads something: then they come along.

    Attributes
    ----------
    made
        The copies, by name; empty until they are made.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, torch.Tensor] = {}
        self.made: dict[str, torch.Tensor] = {}

    def want(self, tensors: Mapping[str, torch.Tensor], /) -> None:
        """Ask for copies, in place of earlier ones."""
        self._wanted, self.made = dict(tensors), {}

    def read(self, tensors: Mapping[str, torch.Tensor], /) -> dict[str, torch.Tensor]:
        """Return tensors on the host; what is wanted comes along."""
        wanted, self._wanted = self._wanted, {}
        copies = on_host({**{f"wanted {name}": x for name, x in wanted.items()}, **tensors})
        self.made |= {name: copies[f"wanted {name}"] for name in wanted}
        return {name: copies[name] for name in tensors}
