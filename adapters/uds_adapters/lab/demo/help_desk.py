"""The demo with a real model: LoRA on a shop's help desk, where most requests are routine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import storage
from ..data.source import Source
from ..model_paths import fingerprint
from ..report.curves import curves
from ..training.settings import Settings
from ..training.task import Task
from . import tickets

__all__ = ["MAPPED", "POLICIES", "Sizes", "flags", "jobs", "made", "make", "outcome", "settings", "words"]

POLICIES = ("random", "fresh", "predicted:entropy,warmup=4")
MAPPED = 100
"""Records on the map of the report."""

_SETTINGS = Settings(batch_size=32, steps=32, learning_rate=1e-3, lora_rank=8, budget="tokens", eval_every=5, threads=1)
_MADE = "demo.json"  # written last: what it says is there
_WIDTH = 40  # characters of the longest bar
_WAYS = {
    "full": "all",
    "random": "random ones",
    "fresh": "random ones, near-duplicates of recently chosen requests last",
    "predicted": "those with the highest predicted entropy; the prediction is learnt during training",
    "uds": "those with the richest predictions that differ most from recently chosen requests",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The model, and sizes of the generated data."""

    model: Path
    train: int = 2400
    about_products: int = 48
    """Held-out questions about products, worded as no training question."""
    common: int = 14
    """Held-out routine requests, one of each kind."""
    routine: float = 0.8
    """Fraction of routine requests in the training data."""


def settings() -> Settings:
    """Return the settings: LoRA, in bfloat16 where the hardware computes in it."""
    return replace(_SETTINGS, bf16=_has_bfloat16())


def jobs() -> int:
    """Return how many runs are trained at once: one on each GPU, else one on each of two cores."""
    return max(torch.cuda.device_count() or min(2, os.cpu_count() or 1), 1)


def made(folder: Path, /, *, sizes: Sizes, seed: int) -> Source | None:
    """Return what `make` wrote there with the same sizes and seed; None where it did not."""
    file = folder / _MADE
    same = file.is_file() and json.loads(file.read_text(encoding="utf-8")) == _asked(sizes, seed)
    return _source(folder, sizes.model) if same else None


def make(folder: Path, /, *, sizes: Sizes, seed: int) -> Source:
    """Generate the data into `folder`; what to compare policies on."""
    common = tickets.tickets(sizes.common, seed=seed + 1, routine=1.0)
    about_products = tickets.tickets(sizes.about_products, seed=seed + 2, routine=0.0, wording="new")
    heldout = [*common, *about_products]
    train = tickets.tickets(sizes.train, seed=seed + 3, routine=sizes.routine, without=heldout)
    tickets.write(train, folder / "train.jsonl")
    tickets.write(heldout, folder / "heldout.jsonl")
    storage.write(folder / _MADE, json.dumps(_asked(sizes, seed)))
    return _source(folder, sizes.model)


def words(sizes: Sizes, settings: Settings, policies: Sequence[str], /, *, name: str, seeds: int) -> str:
    """Return what is about to be shown, for a newcomer."""
    kept = max(1, round(settings.keep * settings.batch_size))
    about = (
        f"Does it pay to choose what a language model is fine-tuned on? {name} learns to reply for a shop's help desk, "
        f"by LoRA. Of the {sizes.train} requests {sizes.routine:.0%} are routine: {sizes.common} kinds that come every "
        "day and always get the same reply. The others ask about products, and each reply has a fact to learn. Held out"
        f" are {sizes.about_products} questions about products in other words, and {sizes.common} routine requests. "
    )
    how = (
        f"Each step has {settings.batch_size} candidates and trains on about {kept} of them, until each policy has "
        f"trained on equally many tokens of replies. {seeds} seeds. What differs is which ones, and the time it takes:"
    )
    lines = [f"  {policy}: {_WAYS[kind]}" for policy in policies if (kind := policy.partition(":")[0]) in _WAYS]
    return "\n".join([about + how, *lines])


def flags(task: Task, /) -> Mapping[str, Sequence[bool]]:
    """Return which training examples are routine."""
    return {name: [bool(record.raw[name]) for record in task.records] for name in tickets.FLAGS}


def outcome(results: Mapping[str, Any], /) -> str:
    """Return a chart in text: the seconds of training until the loss that random selection ends with."""
    policies = [row["policy"] for row in results["summary"]]
    lines = {line["policy"]: line["mean"] for line in curves(results["runs"], policies)["policies"]}
    if "random" not in lines or len(lines) < 2:
        return ""
    goal = lines["random"][-1]["loss"]["mean"]
    reached = {policy: seconds_until(goal, points) for policy, points in lines.items()}
    longest = max(seconds for seconds in reached.values() if seconds is not None)
    margin = max(map(len, reached))
    shown = [
        f"  {policy:{margin}}  " + ("not reached" if seconds is None else _bar(seconds, longest))
        for policy, seconds in reached.items()
    ]
    head = (
        f"Seconds of training until the held-out loss that random selection ends with, {goal:.3f} (means over seeds):"
    )
    return "\n".join([head, *shown])


def seconds_until(goal: float, points: Sequence[Mapping[str, Any]], /) -> float | None:
    """Return where a mean curve first reaches a loss, between two evaluations by interpolation; None: nowhere."""
    before = None
    for point in points:
        loss, seconds = point["loss"]["mean"], point["seconds"]
        if loss <= goal:
            if before is None or before[0] == loss:
                return seconds
            part = (before[0] - goal) / (before[0] - loss)
            return before[1] + part * (seconds - before[1])
        before = (loss, seconds)
    return None


def _bar(seconds: float, longest: float) -> str:
    return f"{'█' * max(1, round(_WIDTH * seconds / max(longest, 1e-9)))} {seconds:.0f} s"


def _asked(sizes: Sizes, seed: int) -> dict[str, Any]:
    return {**asdict(sizes), "seed": seed, "model": fingerprint(sizes.model)}


def _source(folder: Path, model: Path) -> Source:
    return Source(model=model, data=folder / "train.jsonl", eval_data=folder / "heldout.jsonl", max_length=128)


def _has_bfloat16() -> bool:
    """Return whether products of bfloat16 matrices are faster than of float32 ones here."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    known = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
