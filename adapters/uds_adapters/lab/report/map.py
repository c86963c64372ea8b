"""Map of training records: sketches under the model before training, projected to two dimensions."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import uds_core as uds

from ...scoring.scorer import Scorer
from ..models import load_model, quiet
from ..training.task import Task

__all__ = ["LIMIT", "flat", "place_records"]

LIMIT = 400  # records on a map

_BATCH = 16  # records in a forward pass


def place_records(
    task: Task, /, *, seed: int, limit: int = LIMIT, after: Callable[[int], None] | None = None
) -> dict[str, list[Any]] | None:
    """Return the positions of at most `limit` records, drawn by `seed`: close together if their sketches are similar.

    `after` is called with the number of records processed.

    Returns
    -------
    dict
        `x`, `y`, and `record`, its index in the data set; None for fewer than three records, which span no plane.

    Notes
    -----
    Loads the model, and costs one forward pass over those records, on the accelerator if there is one.
    """
    drawn = random.Random(seed).sample(range(len(task.train)), min(limit, len(task.train)))
    drawn.sort(key=lambda index: len(task.train[index]["input_ids"]))
    with quiet():
        sketches = _sketches(task, drawn, seed=seed, after=after)
    sound = np.flatnonzero(np.isfinite(sketches).all(axis=1))
    if len(sound) < 3:
        return None
    x, y = flat(sketches[sound]).T
    return {"x": x.tolist(), "y": y.tolist(), "record": [drawn[place] for place in sound.tolist()]}


def flat(points: np.ndarray, /) -> np.ndarray:
    """Return coordinates (points, 2) along the two directions of largest variance of `points` (points, dim)."""
    centred = points - points.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    if len(directions) < 2:  # one number a point
        directions = np.vstack([directions, np.zeros_like(directions)])
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[[0, 1], largest])  # the decomposition leaves the signs open
    return centred @ (directions * np.where(signs == 0, 1, signs)[:, None]).T


def _sketches(task: Task, drawn: list[int], *, seed: int, after: Callable[[int], None] | None) -> np.ndarray:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = accelerator or torch.device("cpu")
    scorer = Scorer(load_model(task.model).requires_grad_(False).to(device))
    policy = uds.UDS(frobenius=1.0, seed=seed)  # without a spectrum, which the map does not need
    sketches = []
    for start in range(0, len(drawn), _BATCH):
        batch = task.collator([task.train[index] for index in drawn[start : start + _BATCH]])
        placed = {name: tensor.to(device) for name, tensor in batch.items() if name != "index"}
        features = scorer.examine(scorer.view(placed), policy)
        sketches.append(features["sketch"].float().cpu().numpy())
        if after is not None:
            after(sum(map(len, sketches)))
    return np.concatenate(sketches)
