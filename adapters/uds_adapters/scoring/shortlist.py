"""Exact scores of the candidates on a policy's shortlist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import uds_core as uds

from ..batches import SampleView

__all__ = ["Measured", "with_exact_scores"]


class Measured(NamedTuple):
    """A policy that measures: its features are the exact scores."""

    policy: Any

    @property
    def needs(self) -> uds.Needs:
        """Inputs of the policy."""
        return self.policy.needs

    def examine(self, candidates: uds.Candidates) -> uds.Features:
        """Return `exact` and `length`."""
        return {"exact": self.policy.measure(candidates), "length": candidates.lengths()}


def with_exact_scores(
    features: uds.Features,
    samples: SampleView,
    examine: Callable[[SampleView, Any], uds.Features],
    /,
    *,
    view: Callable[..., SampleView],
    policy: Any,
    state: Any,
) -> uds.Features:
    """Return the features of one batch, with the exact scores of its shortlist and NaN for the other samples.

    Parameters
    ----------
    features
        Of all samples, without logits.
    samples
        The view of the batch.
    examine
        ``examine(samples, policy) -> features``, with a forward pass.
    view
        ``view(batch, beside=...)``: the view of a part of the batch.
    policy, state
        A policy with `Needs.shortlist`, and its state; None before the first choice.
    """
    features = policy.shortlist(state, features)
    indices = torch.nonzero(features["shortlist"].cpu() > 0)[:, 0]
    if len(indices) < len(samples):
        beside = {name: numbers[indices.to(numbers.device)] for name, numbers in samples.beside.items()}
        samples = view(samples.take(indices), beside=beside)
    scores = examine(samples, Measured(policy))["exact"].float()
    exact = torch.full_like(features["length"], torch.nan)
    exact[indices.to(exact.device, non_blocking=True)] = scores.to(exact.device)
    return {**features, "exact": exact}
