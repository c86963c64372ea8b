"""Policies with a target: its n-grams, or its embeddings by the model that scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

import uds_core as uds

from ...scoring.batch_scorer import BatchScorer
from ..data.encoding import Collator, Encoder, pad_id
from ..data.source import Source
from ..data.target import examples, in_batches, target_counts
from ..policy_spec import parse, wants_target
from ..training.task import encoder_of

__all__ = ["embedded", "options"]


def options(source: Source, spec: str, encoder: Encoder | None = None, /) -> dict[str, Any]:
    """Return the options of the policy `spec` that come from a target; of embeddings, which need the model, None."""
    if not wants_target(spec):
        return {}
    encoder = encoder_of(source) if encoder is None else encoder
    target = examples(source, encoder)
    return {"target": None if parse(spec)[0] == "rds" else target_counts(target, _collator(encoder))}


def embedded(policy: Any, source: Source, encoder: Encoder, /, *, scorer: BatchScorer, device: torch.device) -> Any:
    """Return the policy `RDS` with the embeddings of a target's examples, from the model of `scorer`."""
    embedding: Any = _Embedding(policy)
    found = []
    for batch in in_batches(examples(source, encoder), _collator(encoder)):
        samples, _ = scorer.view({name: tensor.to(device) for name, tensor in batch.items()})
        with torch.no_grad():
            found.append(scorer.features(embedding, [samples])["embedding"])
    return replace(policy, target=torch.cat(found))


def _collator(encoder: Encoder) -> Collator:
    return Collator(pad_id(encoder.tokenizer))


class _Embedding(NamedTuple):
    """A policy whose features are the embeddings of samples."""

    policy: Any

    @property
    def needs(self) -> uds.Needs:
        return self.policy.needs

    def examine(self, candidates: uds.Candidates) -> uds.Features:
        return {"embedding": self.policy.embed(candidates), "length": candidates.lengths()}
