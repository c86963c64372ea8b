"""Access to the samples of a batch, padded or packed."""

from .entries import LOSS_WEIGHTS
from .layout import Layout
from .samples import IGNORE, Indexer, SampleView, blank, empty, join, trained_tokens, view

__all__ = [
    "IGNORE",
    "LOSS_WEIGHTS",
    "Indexer",
    "Layout",
    "SampleView",
    "blank",
    "empty",
    "join",
    "trained_tokens",
    "view",
]
