"""Budgets, and the choice of samples by score."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _options
from ._array import Array, array_namespace, check_device, constant, to_numpy
from .memory import direct_distances

_BLOCK_ROWS = 4096  # sketches that are subtracted at a time: a pool may be a whole data set, on disk


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Part of a pool that is kept; all of it by default.

    Parameters
    ----------
    keep
        A fraction of the samples, in (0, 1]: K = min(B, max(1, floor(keep B + 0.5))).
    count
        A number of samples.
    tokens
        A number of scored rows: in score order, samples that no longer fit are skipped, as are samples without rows or
        without a score. The best sample is kept even where it alone has more rows.
    processed
        A number of tokens that are processed, those of prompts included; otherwise as `tokens`.
    """

    keep: float | None = None
    count: int | None = None
    tokens: int | None = None
    processed: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            both = ", ".join(f"{name}={value}" for name, value in given.items())
            msg = f"give one of `keep`, `count`, `tokens` and `processed`, got {both}"
            raise ValueError(msg)
        if self.keep is not None:
            remedy = "; for a number of samples use `count`"
            _options.number("keep", self.keep, "a fraction in (0, 1]", fits=lambda keep: 0 < keep <= 1, remedy=remedy)
        for name, value in (("count", self.count), ("tokens", self.tokens), ("processed", self.processed)):
            if value is not None:
                _options.whole(name, value, remedy="; for a fraction use `keep`")

    @property
    def token_limit(self) -> int | None:
        """Most tokens that are kept, of those that are counted; None where samples are."""
        return self.processed if self.tokens is None else self.tokens

    def size(self, batch: int, /) -> int:
        """Return the most samples kept of a pool of `batch`; a budget of tokens may keep fewer."""
        if self.count is not None:
            return min(batch, self.count)
        keep = 1.0 if self.keep is None else self.keep
        return min(batch, max(1, int(keep * batch + 0.5)))


def top_k(scores: Array, length: Array, /, *, budget: Budget, groups: Array | None = None) -> Array:
    """Return indices of the best scores, best first.

    Parameters
    ----------
    scores
        (batch,). Ties go to the lower index.
    length
        (batch,): scored rows of each sample; with a budget of `processed` tokens, all of its tokens, and 0 where no row
        is scored. An empty sample comes after all that have rows and a score; a sample whose score is NaN comes last of
        all, since training on it would destroy the model.
    budget
        How much is kept, of the pool or of each group.
    groups
        (batch,) integers, one value a group (a micro-batch, a rank), or None.

    Returns
    -------
    Array
        (k,) distinct indices, int32, over all groups best first.

    Notes
    -----
    O(batch log batch). With `groups` or a budget of tokens the order is brought to the host.
    """
    xp = array_namespace(scores, length)
    check_scores(scores, length, groups, budget)
    order = _best_first(scores, length)
    if groups is None and budget.token_limit is None:
        return xp.astype(order[: budget.size(scores.shape[0])], xp.int32, copy=False)
    quota = _Quota.of(budget, scores, length, groups)
    kept = [i for i in to_numpy(order).tolist() if quota.take(i)]
    return constant(np.asarray(kept, dtype=np.int32), like=scores)


def with_score(chosen: Array, indices: Array, scores: Array, /) -> Array:
    """Return `chosen` (k,), numbers of the samples at `indices` (k,), without samples whose score (batch,) is NaN."""
    xp = array_namespace(chosen, indices, scores)
    known = to_numpy(~xp.isnan(xp.take(scores, indices)))
    if known.all():
        return chosen
    return xp.take(chosen, constant(np.flatnonzero(known).astype(np.int32), like=chosen))


def greedy(
    scores: Array,
    sketches: Array,
    length: Array,
    /,
    *,
    budget: Budget,
    radius: float,
    groups: Array | None = None,
) -> Array:
    r"""Pick the best, lower the scores of near samples, pick the next.

    .. math:: s_i' = s_i \min\left(1, \frac{n_i}{r}\right)

    n_i: distance to the nearest sample already picked in this step; exactly 0 for a copy of it.

    Parameters
    ----------
    scores
        (batch,), of at least 0.
    sketches
        (batch, dim).
    length, budget, groups
        As in `top_k`; what was picked counts for all groups.
    radius
        r: distance beyond which a score is not lowered; 0: only exact copies are lowered.

    Returns
    -------
    Array
        (k,) distinct indices, int32, in the order of picking.

    Notes
    -----
    O(k batch dim): distances are kept up to date with each pick, and taken directly, not through a Gram matrix.
    """
    _options.number("radius", radius, "at least 0", fits=lambda r: r >= 0)
    radius = float(radius)
    xp = array_namespace(scores, sketches, length)
    check_scores(scores, length, groups, budget)
    nearest = xp.full_like(scores, xp.inf)

    def lowered(picked: int | None) -> Array:
        nonlocal nearest
        if picked is None:
            return scores
        nearest = xp.minimum(nearest, _finite_distances(sketches, picked))
        if radius == 0:  # the limit of the formula: a copy scores 0, all others are not lowered
            return scores * xp.astype(nearest > 0, scores.dtype)
        return scores * xp.minimum(nearest / radius, xp.ones_like(nearest))

    return in_turn(lowered, length, budget=budget, groups=groups)


def in_turn(
    after: Callable[[int | None], Array], length: Array, /, *, budget: Budget, groups: Array | None = None
) -> Array:
    """Pick the best, compute the scores of the rest again, pick the next.

    Parameters
    ----------
    after
        Called with None first, then with each index picked: the scores (batch,) from then on.
    length, budget, groups
        As in `top_k`; what was picked counts for all groups.

    Returns
    -------
    Array
        (k,) distinct indices, int32, in the order of picking.

    Notes
    -----
    O(k batch log batch), beside what `after` costs. The order of each turn is brought to the host.
    """
    scores = after(None)
    check_scores(scores, length, groups, budget)
    quota = _Quota.of(budget, scores, length, groups)
    left = np.ones(length.shape[0], dtype=bool)
    picked: list[int] = []
    while left.any() and not quota.full:
        order = to_numpy(_best_first(scores, length))
        for index in order[left[order]].tolist():
            left[index] = False
            if quota.take(index):
                picked.append(index)
                scores = after(index)
                break
    return constant(np.asarray(picked, dtype=np.int32), like=scores)


def round_robin(scores: Array, length: Array, /, *, budget: Budget, groups: Array | None = None) -> Array:
    """Pick for each column of scores in turn the best sample that is left.

    Parameters
    ----------
    scores
        (batch, turns), at least one turn.
    length, budget, groups
        As in `top_k`; what was picked counts for all groups.

    Returns
    -------
    Array
        (k,) distinct indices, int32, in the order of picking.

    Notes
    -----
    O(turns batch log batch), on the host.
    """
    values, lengths = to_numpy(scores), to_numpy(length)
    if values.ndim != 2 or not values.shape[1]:
        msg = f"`scores` must have shape (batch, turns) with at least one turn, got {tuple(scores.shape)}"
        raise ValueError(msg)
    check_scores(scores[:, 0], length, groups, budget)
    quota = _Quota.of(budget, scores[:, 0], length, groups)
    unknown = np.isnan(values)
    last = np.where(unknown, 2, (lengths == 0)[:, None])
    order = np.lexsort((np.where(unknown, 0.0, -values), last), axis=0)
    left = np.ones(len(values), dtype=bool)
    place = np.zeros(values.shape[1], dtype=np.int64)
    picked: list[int] = []
    for turn in itertools.cycle(range(values.shape[1])):
        while place[turn] < len(values):
            index = int(order[place[turn], turn])
            place[turn] += 1
            if left[index]:
                left[index] = False
                if quota.take(index):
                    picked.append(index)
                    break
        if quota.full or not left.any():
            return constant(np.asarray(picked, dtype=np.int32), like=scores)
    raise AssertionError


class _Quota:
    """Rest of a budget for each group during one choice, on the host."""

    def __init__(
        self, budget: Budget, *, length: np.ndarray[Any, Any], able: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]
    ) -> None:
        limit = budget.token_limit
        self.by_tokens, self.length, self.able, self.groups = limit is not None, length, able, groups
        names, sizes = np.unique(groups, return_counts=True)
        self.places = {int(name): budget.size(int(size)) for name, size in zip(names, sizes, strict=True)}
        self.tokens = dict.fromkeys(self.places, float("inf") if limit is None else float(limit))
        self.first = dict.fromkeys(self.places, True)

    @classmethod
    def of(cls, budget: Budget, scores: Array, length: Array, groups: Array | None) -> "_Quota":
        lengths = to_numpy(length)
        able = ~np.isnan(to_numpy(scores)) & (lengths > 0)
        belongs = np.zeros(lengths.shape, dtype=np.int64) if groups is None else to_numpy(groups)
        return cls(budget, length=lengths, able=able, groups=belongs)

    @property
    def full(self) -> bool:
        return not any(self.places.values())

    def take(self, index: int) -> bool:
        """Return whether the sample fits; if so, count it."""
        group, length = int(self.groups[index]), float(self.length[index])
        # of a budget of tokens nothing is left over that only an empty or a broken sample could take
        beyond = self.by_tokens and (length > self.tokens[group] or not self.able[index])
        if not self.places[group] or (beyond and not self.first[group]):
            return False
        self.places[group] -= 1
        self.tokens[group] -= length
        self.first[group] = False
        return True


def check_scores(scores: Array, length: Array, groups: Array | None, budget: Budget) -> None:
    """Raise where shapes, devices or the budget do not fit each other."""
    _options.check("budget", budget, "a Budget", kind=Budget, fits=lambda _: True)
    check_device("length", length, like=scores, like_name="scores")
    batch = scores.shape[0]
    if scores.ndim != 1 or tuple(length.shape) != (batch,):
        msg = f"`scores` and `length` must have shape (batch,), got {tuple(scores.shape)} and {tuple(length.shape)}"
        raise ValueError(msg)
    if groups is not None and tuple(groups.shape) != (batch,):
        msg = f"`groups` must have shape ({batch},), got {tuple(groups.shape)}"
        raise ValueError(msg)


def _best_first(scores: Array, length: Array) -> Array:
    """Return all indices: samples with a score by score, then empty ones, then those whose score is NaN."""
    xp = array_namespace(scores)
    unknown = xp.isnan(scores)
    by_score = xp.argsort(xp.where(unknown, xp.zeros_like(scores), scores), descending=True, stable=True)
    empty = xp.astype(length == 0, xp.int8)
    rank = xp.where(unknown, xp.full_like(empty, 2), empty)
    return xp.take(by_score, xp.argsort(xp.take(rank, by_score), stable=True))


def _finite_distances(sketches: Array, index: int) -> Array:
    xp = array_namespace(sketches)
    one, n = sketches[index, ...], sketches.shape[0]
    blocks = (sketches[start : min(start + _BLOCK_ROWS, n), ...] for start in range(0, n, _BLOCK_ROWS))
    apart = xp.concat([direct_distances(block, one) for block in blocks])
    return xp.where(xp.isnan(apart), xp.full_like(apart, xp.inf), apart)
