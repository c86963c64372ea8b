"""How likely a model finds given completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..batches import IGNORE
from ..scoring.scorer import evaluating
from .encode import Collator, Example

__all__ = ["Likelihood"]


class Likelihood:
    """Summed negative log-likelihoods of the completions of examples.

    Parameters
    ----------
    examples
        Batched by length, so that little is spent on padding; results come in the order in which they were given.
    collator
        Pads them.
    batch_size
        Examples a forward pass.

    Attributes
    ----------
    tokens
        Number of tokens with loss in each example.
    """

    def __init__(self, examples: Sequence[Example], /, *, collator: Collator, batch_size: int = 16) -> None:
        self._order = sorted(range(len(examples)), key=lambda place: len(examples[place]["input_ids"]))
        chunks = [self._order[i : i + batch_size] for i in range(0, len(self._order), batch_size)]
        self._batches = [collator([examples[place] for place in chunk]) for chunk in chunks]
        self.tokens = [sum(label != IGNORE for label in example["labels"][1:]) for example in examples]

    @torch.no_grad()
    def __call__(self, model: Any, /) -> list[float]:
        """One number an example, of `model` in evaluation mode; its modes are restored."""
        device = next(model.parameters()).device
        found: list[float] = []
        with evaluating(model):
            for batch in self._batches:
                targets = batch["labels"][:, 1:].to(device)
                inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
                logits = model(**inputs, use_cache=False).logits[:, :-1]
                scored = targets != IGNORE  # the vocabulary is wide: only rows that count are made float32
                losses = torch.zeros(targets.shape, dtype=torch.float64, device="cpu")
                losses[scored.cpu()] = (
                    torch.nn.functional.cross_entropy(logits[scored].float(), targets[scored], reduction="none")
                    .cpu()
                    .double()
                )
                found += losses.sum(1).tolist()
        return [value for _, value in sorted(zip(self._order, found, strict=True))]
