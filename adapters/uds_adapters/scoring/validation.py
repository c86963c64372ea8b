"""Validation samples for policies that select candidates by their effect on the validation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

import uds_core as uds

from .. import batches
from .scorer import Scorer

__all__ = ["ValidationScorer"]


class ValidationScorer(Scorer):
    """A `Scorer` that also gives the policy validation samples, scored by the same model in the same step.

    Parameters
    ----------
    model
        As of `Scorer`.
    validation
        A batch from the collator; or a function without arguments that returns the batch of the step, such as
        ``lambda: next(batches)``, which must then resume by itself. Its tensors are moved to the model's device.
    **options
        Those of `Scorer`.

    Notes
    -----
    Each selection costs one more forward pass, of the validation batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        validation: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.validation = validation

    def examine(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """Return the policy's features of all samples, in order."""
        with_validation: Any = _WithValidation(policy, self(self.validation_batch()))
        return super().examine(samples, with_validation)

    def validation_batch(self) -> dict[str, Any]:
        """Return the validation batch of this step, on the model's device."""
        batch = self.validation() if callable(self.validation) else self.validation
        device = next(self.model.parameters()).device
        return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}


class _WithValidation(NamedTuple):
    """A policy that receives validation samples with each micro-batch."""

    policy: uds.Policy
    validation: uds.Candidates

    @property
    def needs(self) -> uds.Needs:
        return self.policy.needs

    def examine(self, candidates: uds.Candidates) -> uds.Features:
        return self.policy.examine(candidates.with_extra(validation=self.validation))
