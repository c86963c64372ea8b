"""Greedy continuations of prompts, in batches of like length."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from uds_adapters.scoring.scorer import evaluating

__all__ = ["Continuation", "continued"]


class Continuation(NamedTuple):
    """What a model wrote."""

    text: str
    ended: bool
    """Whether the model ended it, before its tokens were used up."""


def continued(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, tokens: int, batch: int = 16
) -> list[Continuation]:
    """What `model` writes behind each prompt, at most so many tokens, always the likeliest one."""
    end, found = tokenizer.eos_token_id, [Continuation("", ended=False)] * len(prompts)
    encoded = [tokenizer(prompt).input_ids for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda place: len(encoded[place]))
    with evaluating(model), torch.no_grad():
        for start in range(0, len(order), batch):
            here = order[start : start + batch]
            width = max(len(encoded[place]) for place in here)
            ids = torch.tensor([[end] * (width - len(encoded[place])) + encoded[place] for place in here])
            mask = torch.tensor([[0] * (width - len(encoded[p])) + [1] * len(encoded[p]) for p in here])
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=end
            )[:, width:]
            for place, row in zip(here, made, strict=True):
                text = tokenizer.decode(row, skip_special_tokens=True)
                found[place] = Continuation(text, ended=bool((row == end).any()))
    return found
