"""Selection from a whole data set, in rounds, each against the memory of those before."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import uds_core as uds

from ..errors import LabError
from .wide_features import keep_rows

__all__ = ["RankedRecords", "check", "choose", "number_of"]


@dataclass(frozen=True, kw_only=True)
class RankedRecords:
    """What was chosen of a pool, and why."""

    rounds: np.ndarray
    """(n,) int16: the round in which each was chosen, from 1; 0 for those that were not."""
    columns: dict[str, np.ndarray]
    """`score` and its parts, each (n,) float32: of the round of the chosen, and of the last for the others."""


def choose(
    policy: uds.Policy,
    features: uds.Features,
    /,
    *,
    best: int,
    rounds: int,
    in_place: bool = False,
    progress: Callable[[int], None] | None = None,
) -> RankedRecords:
    """The `best` of a pool by `policy`.

    A policy that remembers what it chose (UDS) has nothing to keep away from in its first choice: in one choice from
    the whole pool, its diversity would be 0. So the best are chosen in `rounds` nearly equal parts, each from all that
    is left, with the memory of the rounds before. For policies that rank each sample on its own, any number of rounds
    gives the same.

    Parameters
    ----------
    policy
        With an option `count`.
    features
        Of the whole pool, on one device.
    best
        How many.
    rounds
        In how many choices.
    in_place
        Whether features of a vector a sample may be overwritten with those that are left; otherwise they are copied.
    progress
        Called with the number of rounds done.

    Raises
    ------
    LabError
        See `check`.

    Notes
    -----
    With `in_place`, and features in mapped files, memory holds some numbers a sample and no vectors. Time: `rounds`
    times `choose` on the pool; for UDS O(rounds n memory dim).
    """
    check(policy, best, pool := features["length"].shape[0])
    left, state = torch.arange(pool, device=features["length"].device), None
    columns: dict[str, np.ndarray] = {}
    when = np.zeros(pool, dtype=np.int16)
    parts = _parts(best, rounds)
    for number, count in enumerate(parts, start=1):
        selection, state = _keeping(policy, count).choose(state, features)
        places = left.cpu().numpy()
        for name, column in selection.table().items():
            columns.setdefault(name, np.full(pool, np.nan, dtype=np.float32))[places] = column
        chosen = selection.indices.long()
        when[left[chosen].cpu().numpy()] = number
        staying = torch.ones(len(left), dtype=torch.bool, device=left.device)
        staying[chosen] = False
        left = left[staying]
        if number < len(parts):
            features = {name: _kept(column, staying, in_place=in_place) for name, column in features.items()}
        if progress is not None:
            progress(number)
    return RankedRecords(rounds=when, columns=columns)


def check(policy: Any, best: int, pool: int, /) -> None:
    """Raise where `policy` cannot choose `best` of `pool`: it learns in training, keeps what it likes, or draws."""
    if policy.needs.training_pass and not policy.needs.forward_pass_at(0):
        msg = f"the policy {uds.name_of(policy)!r} learns from training, and nothing is trained here: take another"
        raise LabError(msg)
    if policy.needs.weights:
        msg = "the policy draws samples with importance weights, which a subset cannot carry"
        raise LabError(msg)
    if best != pool and "count" not in _options(policy):
        msg = f"the policy {uds.name_of(policy)!r} has no say in how many it keeps: take another, or `--keep 1.0`"
        raise LabError(msg)


def number_of(best: str, pool: int, /) -> int:
    """How many of `pool` samples the words `best` ask for: a share with a decimal point (``0.25``), or a number.

    Raises
    ------
    LabError
        Where they ask for none, or for more than there are.
    """
    try:
        if "." in best:
            share = float(best)
            number = max(1, int(share * pool + 0.5)) if 0.0 < share <= 1.0 else 0
        else:
            number = int(best.replace("_", ""))
    except ValueError:
        number = 0
    if number < 1:
        msg = f"`keep` must be a fraction in (0, 1] such as 0.25, or a number of records such as 500, got {best!r}"
        raise LabError(msg)
    if number > pool:
        msg = f"`keep` asks for {number} records, and only {pool} can be scored: ask for fewer"
        raise LabError(msg)
    return number


def _parts(best: int, rounds: int) -> list[int]:
    """Sizes of the rounds, which add up to `best`; no round is empty."""
    rounds = min(best, rounds)
    edges = [best * number // rounds for number in range(rounds + 1)]
    return [end - start for start, end in itertools.pairwise(edges)]


def _kept(column: torch.Tensor, staying: torch.Tensor, *, in_place: bool) -> torch.Tensor:
    return keep_rows(column, staying.nonzero()[:, 0]) if in_place and column.ndim > 1 else column[staying]


def _keeping(policy: Any, count: int) -> uds.Policy:
    """The policy, to keep so many."""
    known = _options(policy)
    if "count" not in known:
        return policy
    return dataclasses.replace(policy, **dict.fromkeys({"keep", "tokens", "processed"} & known), count=count)


def _options(policy: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(policy)} if dataclasses.is_dataclass(policy) else set()
