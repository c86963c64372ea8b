"""Batches: the samples of a mapping of tensors, whatever its form."""

from .entries import LOSS_WEIGHTS
from .samples import IGNORE, Indexer, SampleView, blank, join, trained_tokens, view

__all__ = ["IGNORE", "LOSS_WEIGHTS", "Indexer", "SampleView", "blank", "join", "trained_tokens", "view"]
