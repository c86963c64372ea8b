"""Batches: the samples of a mapping of tensors, whatever its form."""

from .samples import IGNORE, Indexer, SampleView, blank, join, trained_tokens, view

__all__ = ["IGNORE", "Indexer", "SampleView", "blank", "join", "trained_tokens", "view"]
