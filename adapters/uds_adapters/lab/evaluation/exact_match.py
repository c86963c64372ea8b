"""Exact match of greedily generated answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers

from ...scoring.scorer import evaluating
from ..data.encoding import Encoder, pad_id
from ..data.records import Record

__all__ = ["ExactMatch", "answer"]

_MARK = "####"
_BETWEEN_DIGITS = re.compile(r"(?<=\d),(?=\d)")


def answer(text: str, /, *, marked: bool) -> str:
    """What of `text` is compared.

    Where answers are `marked`, as in GSM8K, the line after the first ``####``, or nothing where there is none; commas
    between digits are dropped. Elsewhere all of it. White space at either end never counts.
    """
    if not marked:
        return text.strip()
    _, _, after = text.partition(_MARK)
    return _BETWEEN_DIGITS.sub("", after.strip().split("\n")[0].strip())


class ExactMatch:
    """Whether the model, always taking its likeliest token, writes the answer.

    Parameters
    ----------
    records
        Their completions hold the answers.
    encoder
        As for training: what comes before the completion is what the model continues.
    new_tokens
        At most so many are generated, fewer where the model ends its text or its context is full.
    batch_size
        Prompts that are continued together.
    """

    def __init__(
        self, records: Sequence[Record], /, *, encoder: Encoder, new_tokens: int, batch_size: int = 16
    ) -> None:
        encoder = replace(encoder, train_on="last")
        self._tokenizer, self._new_tokens = encoder.tokenizer, new_tokens
        self._prompts = [encoder.prompt_ids(record) for record in records]
        self._expected = [encoder.completion(record) for record in records]
        order = sorted(range(len(records)), key=lambda place: len(self._prompts[place]))
        self._batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def __call__(self, model: Any, /) -> list[bool]:
        """Of each record, whether `model` writes its answer."""
        found = [False] * len(self._prompts)
        with evaluating(model):
            for places in self._batches:
                for place, text in zip(places, self._continued(model, places), strict=True):
                    found[place] = _same(text, self._expected[place])
        return found

    @torch.no_grad()
    def _continued(self, model: Any, places: Sequence[int]) -> list[str]:
        prompts = [self._prompts[place] for place in places]
        longest, device = max(map(len, prompts)), next(model.parameters()).device
        pad = pad_id(self._tokenizer)
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
        context = getattr(model.config, "max_position_embeddings", None) or longest + self._new_tokens
        room = min(self._new_tokens, context - longest)
        if room < 1:
            return [""] * len(prompts)
        greedy = transformers.GenerationConfig(
            max_new_tokens=room, do_sample=False, pad_token_id=pad, eos_token_id=self._tokenizer.eos_token_id
        )
        written = model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)[:, longest:]
        return self._tokenizer.batch_decode(written, skip_special_tokens=True)


def _same(text: str, expected: str) -> bool:
    marked = _MARK in expected
    return answer(text, marked=marked) == answer(expected, marked=marked) != ""
