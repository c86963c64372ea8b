"""A policy of which some samples have no score, and trainings with it."""

from dataclasses import dataclass
from typing import Any

import loops
import numpy as np
import tiny
import torch
from recorded_trainer import Gradients, Recording, arguments

import uds_core as uds


@dataclass(frozen=True, kw_only=True)
class LongestUpTo:
    """Choose the longest samples; those longer than `limit` score NaN, and are not chosen even where others lack."""

    count: int = 2
    limit: int = 12
    needs = uds.Needs(logits=False)

    def examine(self, candidates, /) -> dict[str, Any]:
        length = candidates.lengths("tokens")
        return {"length": length}

    def init(self, features, /) -> tuple:
        return ()

    def choose(self, state, features, /, *, groups=None) -> tuple[uds.Selection, tuple]:
        length = features["length"]
        scores = np.where(length.numpy() > self.limit, np.nan, length.numpy())
        owners = np.zeros(len(scores)) if groups is None else groups.numpy()
        chosen = []
        for owner in np.unique(owners):
            places = np.flatnonzero((owners == owner) & ~np.isnan(scores))
            chosen += places[np.argsort(-scores[places], kind="stable")][: self.count].tolist()
        indices = torch.tensor(chosen, dtype=torch.int32)
        return uds.Selection(indices=indices, scores=torch.from_numpy(scores)), ()


def rows(*lengths: int) -> list[dict[str, Any]]:
    """Samples of these lengths."""
    ids = [
        torch.randint(2, tiny.VOCAB - 1, (length,), generator=torch.Generator().manual_seed(length)).tolist()
        for length in lengths
    ]
    return [{"input_ids": one, "labels": one} for one in ids]


def _in_order(cls: Any) -> Any:
    """Return the Trainer's class with the data in their order."""

    class InOrder(cls):
        def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(range(len(self.train_dataset)))

    return InOrder


def run(
    folder, data, *, policy: Any = None, callbacks=(), model=None, scope: Any = "micro", cls: Any = Recording, **options
) -> Any:
    seen = Gradients()
    trainer = _in_order(cls)(
        model=tiny.llama() if model is None else model,
        args=arguments(folder, **options),
        train_dataset=data,
        data_collator=tiny.collate,
        callbacks=[seen, *callbacks],
        policy=LongestUpTo() if policy is None else policy,
        scope=scope,
    )
    trainer.train()
    return trainer, seen


def one_rank_without(folder, *, mode: Any) -> dict[str, Any]:
    """Train, of two processes, one whose samples have no score: their outputs are NaN."""
    data = rows(5, 20, 9, 21)  # one after the other to either process
    for one in data[1::2]:
        one["input_ids"] = [loops.BROKEN, *one["input_ids"][1:]]
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 1}
    trainer, seen = run(folder, data, model=loops.broken_model(), scope=mode, **options)
    return {"gradient": seen.steps[0], "loss": trainer.state.log_history[0]["loss"]}
