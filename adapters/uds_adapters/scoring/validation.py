"""Validation samples at the candidates' side, for policies that choose what lowers their loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

import uds_core as uds

from .. import batches
from .scorer import Scorer

__all__ = ["ValidationScorer"]


class ValidationScorer(Scorer):
    """A `Scorer` whose candidates have validation samples with them, scored by the same model in the same step.

    Parameters
    ----------
    model
        As of `Scorer`.
    validation
        A batch that the collator makes; or a function without arguments that returns the batch of the step, such as
        ``lambda: next(batches)``, which then has to resume by itself. Its tensors are moved to the model.
    **options
        Those of `Scorer`.

    Notes
    -----
    Costs one forward pass of the validation batch in each choice.
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
        """The policy's features of all samples, in their order."""
        beside: Any = _Beside(policy, self(self.validation_batch()))
        return super().examine(samples, beside)

    def validation_batch(self) -> dict[str, Any]:
        """The batch of this step, where the model is."""
        batch = self.validation() if callable(self.validation) else self.validation
        device = next(self.model.parameters()).device
        return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}


class _Beside(NamedTuple):
    """The policy, with validation samples beside each micro-batch that it examines."""

    policy: uds.Policy
    validation: uds.Candidates

    @property
    def needs(self) -> uds.Needs:
        return self.policy.needs

    def examine(self, candidates: uds.Candidates) -> uds.Features:
        return self.policy.examine(candidates.with_extra(validation=self.validation))
