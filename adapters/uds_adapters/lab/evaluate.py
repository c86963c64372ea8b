"""Held-out loss: what every policy is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..batches import IGNORE
from ..forward import evaluating
from .encode import Collator, Example

__all__ = ["HeldOut"]


class HeldOut:
    r"""Token-mean negative log-likelihood of the held-out completions.

    .. math:: \frac{1}{\sum_i n_i} \sum_i \sum_t -\log p(y_{it})

    Parameters
    ----------
    examples
        Batched by length, so that little is spent on padding; the order does not change the mean.
    collator
        Pads them.
    batch_size
        Examples a forward pass.
    """

    def __init__(self, examples: Sequence[Example], /, *, collator: Collator, batch_size: int = 16) -> None:
        ordered = sorted(examples, key=lambda example: len(example["input_ids"]))
        self.batches = [collator(ordered[i : i + batch_size]) for i in range(0, len(ordered), batch_size)]

    @torch.no_grad()
    def __call__(self, model: Any, /) -> float:
        """The loss of `model`, in evaluation mode; its modes are restored."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        with evaluating(model):
            for batch in self.batches:
                targets = batch["labels"][:, 1:].to(device)
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
                logits = model(**inputs, use_cache=False).logits[:, :-1]
                scored = targets != IGNORE  # the vocabulary is wide: only rows that count are made float32
                total += float(
                    torch.nn.functional.cross_entropy(logits[scored].float(), targets[scored], reduction="sum")
                )
                count += int(scored.sum())
        return total / count
