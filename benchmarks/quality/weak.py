"""Answers that a weaker model writes: noise as it comes, where data are made by models."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tasks import Record

from uds_adapters.lab.models import load_model, load_tokenizer, quiet

__all__ = ["FRACTION", "answered"]

FRACTION = 0.3
_BATCH = 16
_TOKENS = 48  # of an answer; one ends with its first line


def answered(records: Sequence[Record], rng: random.Random, *, model: Path) -> Iterator[Record]:
    """Some of the records with the greedy answer of the model in the folder `model`, `wrong` if it differs."""
    some = [record for record in records if rng.random() < FRACTION]
    written = dict(zip(map(id, some), _answers([record["prompt"] for record in some], model), strict=True))
    for record in records:
        text = written.get(id(record))
        yield record if text is None else {**record, "completion": text, "wrong": text != record["completion"]}


def _answers(prompts: Sequence[str], folder: Path) -> list[str]:
    with quiet():
        model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    end, texts = tokenizer.eos_token_id, [""] * len(prompts)
    encoded = [tokenizer(prompt).input_ids for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    for start in range(0, len(order), _BATCH):
        here = order[start : start + _BATCH]
        width = max(len(encoded[i]) for i in here)
        ids = torch.tensor([[end] * (width - len(encoded[i])) + encoded[i] for i in here])
        mask = torch.tensor([[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in here])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=_TOKENS, do_sample=False, pad_token_id=end
            )
        for i, row in zip(here, made[:, width:], strict=True):
            texts[i] = _first_line(tokenizer.decode(row, skip_special_tokens=True))
    return texts


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "?"
