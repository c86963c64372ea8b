"""A target: examples of what the model must do, and the counts of their n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import uds_core as uds

from ..errors import LabError
from ..models import quiet
from . import records
from .encoding import Collator, Encoder, Example
from .source import Source

__all__ = ["examples", "in_batches", "target_counts"]


def examples(source: Source, encoder: Encoder, /) -> list[Example]:
    """Return the examples of the source's target.

    Raises
    ------
    LabError
        Where it has none, or none of its records can be read.
    """
    if source.target is None:
        msg = "the policy needs samples of a target: name a file of records of what the model must do with `--target`"
        raise LabError(msg)
    with quiet():
        found = encoder.encode(records.read(source.target, fields=source.fields))
    if not found.examples:
        raise LabError(found.summary.nothing("target record"))
    return found.examples


def in_batches(some: Sequence[Example], collator: Collator, /, *, size: int = 16) -> list[dict[str, torch.Tensor]]:
    """Return batches of examples of similar length."""
    ordered = sorted(some, key=lambda example: len(example["input_ids"]))
    return [collator(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def target_counts(some: Sequence[Example], collator: Collator, /) -> torch.Tensor:
    """Return the counts (buckets,) of the n-grams of examples, as of `uds_core.ngram_counts`."""
    batches = in_batches(some, collator)
    counts = [uds.ngram_counts(batch["input_ids"], mask=batch["attention_mask"] != 0).sum(0) for batch in batches]
    return torch.stack(counts).sum(0)
