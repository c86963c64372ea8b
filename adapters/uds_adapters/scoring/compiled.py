"""Features of candidates by a graph of `torch.compile`."""

from __future__ import annotations

import warnings
from typing import Any

import torch

import uds_core as uds

from .head_probe import outside_autocast

__all__ = ["CompiledExamine", "examined"]


def examined(candidates: uds.Candidates, policy: uds.Policy) -> uds.Features:
    """Return the policy's features of candidates, without autocast."""
    with outside_autocast(candidates.like):
        return policy.examine(candidates)


class CompiledExamine:
    """`examined` by a graph of `torch.compile`; where that fails, as it is, with one warning.

    Notes
    -----
    One graph is made for the first shape of a batch, one when the number of samples changes and one when the length
    does; these serve all shapes, but for sizes of 1 and logits that need another number of blocks. Nothing that is
    derived once from a head is part of a graph: the call that derives it is not compiled.
    """

    def __init__(self) -> None:
        self._compiled: Any = torch.compile(_examine, fullgraph=True)
        self._derives = True  # whether the policy derives anything of a head that is stored; not known at first

    def __call__(self, candidates: uds.Candidates, policy: uds.Policy) -> uds.Features:
        """Return the policy's features of candidates, without autocast."""
        head = getattr(candidates.logits, "head", None) if candidates.has_logits else None
        if self._compiled is None:
            return examined(candidates, policy)
        if self._derives and head is not None and head.frozen and not head.prepared:
            features = examined(candidates, policy)
            self._derives = head.prepared
            return features
        try:
            with warnings.catch_warnings(), outside_autocast(candidates.like):
                warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
                return dict(self._compiled(policy, candidates))
        except Exception as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
        features = examined(candidates, policy)  # an error of the policy itself is raised here
        self._compiled = None
        warnings.warn(
            f"`compile=True` is without effect: {type(policy).__name__}'s scores could not be compiled ({first}); they "
            "are computed as they are. On a CPU it needs a C++ compiler, on a GPU Triton",
            stacklevel=2,
        )
        return features


def _examine(policy: uds.Policy, candidates: uds.Candidates) -> uds.Features:
    return policy.examine(candidates)
