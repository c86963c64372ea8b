"""The demo: generated data, a small pretrained model, and what is compared on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import storage
from ..data.source import Source
from ..models import quiet
from ..system import threads
from ..training.settings import Settings
from ..training.task import Task
from . import instructions
from .tiny_llama import build_model, build_tokenizer, pretrain

__all__ = ["MAPPED", "POLICIES", "Sizes", "flags", "jobs", "made", "make", "outcome", "settings", "words"]

POLICIES = ("full", "random", "uds")
MAPPED = 400
"""Records on the map of the report."""

_SETTINGS = Settings(batch_size=32, steps=90, learning_rate=1e-3, threads=1)

_MADE = "demo.json"  # written last: what it says is there


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of the generated data and of the pretraining."""

    train: int = 3000
    heldout: int = 200
    texts: int = 4000
    pretraining_steps: int = 300
    repeated: float = 0.25
    """Fraction of near-duplicates in the training data."""
    wrong: float = 0.15
    """Fraction of wrong answers in the training data."""


def settings() -> Settings:
    """Return the settings of the runs."""
    return _SETTINGS


def jobs() -> int | None:
    """Return how many runs are trained at once; None: as `uds compare` does."""
    return None


def made(folder: Path, /, *, sizes: Sizes, seed: int) -> Source | None:
    """Return what `make` wrote there with the same sizes and seed; None where it did not."""
    file = folder / _MADE
    same = file.is_file() and json.loads(file.read_text(encoding="utf-8")) == _asked(sizes, seed)
    return _source(folder) if same else None


def make(folder: Path, /, *, sizes: Sizes, seed: int, after_step: Callable[[int], None] | None = None) -> Source:
    """Generate the data and pretrain the model, both into `folder`; what to compare policies on.

    `after_step` is called with the number of pretraining steps done. Nothing is written before the last.
    """
    texts = instructions.plain_text(sizes.texts, seed=seed)
    heldout = instructions.instructions(sizes.heldout, seed=seed + 1)
    train = instructions.instructions(
        sizes.train, seed=seed + 2, repeated=sizes.repeated, wrong=sizes.wrong, without=heldout
    )
    tokenizer = build_tokenizer([*texts, *(f"{item.prompt}\n{item.completion}" for item in train)])
    model = build_model(tokenizer, seed=seed)
    steps = sizes.pretraining_steps
    with threads(_SETTINGS.threads):
        pretrain(model, tokenizer=tokenizer, texts=texts, steps=steps, seed=seed, after_step=after_step)
    instructions.write(train, folder / "train.jsonl")
    instructions.write(heldout, folder / "heldout.jsonl")
    with quiet():
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
    storage.write(folder / _MADE, json.dumps(_asked(sizes, seed)))
    return _source(folder)


def _asked(sizes: Sizes, seed: int) -> dict[str, Any]:
    return {**asdict(sizes), "seed": seed}


def _source(folder: Path) -> Source:
    return Source(
        model=folder / "model", data=folder / "train.jsonl", eval_data=folder / "heldout.jsonl", max_length=128
    )


def words(sizes: Sizes, settings: Settings, policies: Sequence[str], /, *, name: str = "", seeds: int) -> str:  # noqa: ARG001 - of another demo
    """Return what is about to be shown, for a newcomer."""
    candidates = settings.batch_size
    kept = max(1, round(settings.keep * candidates))
    ways = {
        "full": f"all {candidates}",
        "random": f"{kept} random ones",
        "uds": f"the {kept} with the richest predictions that differ most from recently chosen samples",
        "longest": f"the {kept} longest",
        "shortest": f"the {kept} shortest",
        "maxloss": f"the {kept} with the highest loss",
    }
    lines = [f"  {policy}: {ways[policy]}" for policy in policies if policy in ways]
    about = (
        "Does it pay to choose what a language model is fine-tuned on? A small model, made on the spot, learns short "
        f"instructions: sums, units, words. Of the {sizes.train} to train on {sizes.repeated:.0%} nearly repeat "
        f"another and {sizes.wrong:.0%} have a wrong answer. {sizes.heldout} others are held out: the loss on them "
        "says what was learnt, the lower the better."
    )
    again = f" Each starts {seeds} times, with the candidates in another order." if seeds > 1 else ""
    how = (
        f"Each step has {candidates} candidates, the same for all policies, which differ in what they train on.{again}"
    )
    return "\n".join([about, how, *lines])


def flags(task: Task, /) -> Mapping[str, Sequence[bool]]:
    """Return the known flaws of the generated training examples."""
    return {name: [bool(record.raw[name]) for record in task.records] for name in instructions.FLAWS}


def outcome(_results: Mapping[str, Any], /) -> str:
    """Return what is shown after the verdict: nothing."""
    return ""
