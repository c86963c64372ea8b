"""Answers that a weaker model writes: noise as it comes, where data are made by models."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from generation import continued
from tasks import Record

from uds_adapters.lab.models import load_model, load_tokenizer, quiet

__all__ = ["FRACTION", "answered"]

FRACTION = 0.3
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
        model, tokenizer = load_model(folder), load_tokenizer(folder)
    return [_first_line(one.text) for one in continued(model, tokenizer, prompts, tokens=_TOKENS)]


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "?"
