"""Layout of a batch: where its samples and their targets are."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CAUSAL", "Layout"]


class Layout(NamedTuple):
    """Where the samples of a batch and their targets are.

    Attributes
    ----------
    shift
        Whether the target of row t is the label of t + 1, as in causal models. False where it is the label of t itself:
        masked and encoder-decoder models.
    decoder
        Whether labels, and the model's output, belong to a decoder with positions of its own.
    sequences
        Sequences of each sample, 2 for pairs: a batch has the first of every sample, then the second of every sample.
    """

    shift: bool = True
    decoder: bool = False
    sequences: int = 1


CAUSAL = Layout()
