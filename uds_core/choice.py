"""From scores to the samples that are trained on."""

from dataclasses import dataclass

import numpy as np

from ._array import Array, array_namespace, check_device, constant, to_numpy

__all__ = ["Budget", "top_k"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many of a pool are kept: a share `keep` in (0, 1] or a number `count`; neither means all."""

    keep: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.keep is not None and self.count is not None:
            msg = f"give `keep` or `count`, not both: got keep={self.keep}, count={self.count}"
            raise ValueError(msg)
        if self.keep is not None and not 0.0 < self.keep <= 1.0:
            msg = f"`keep` must be a share in (0, 1], got {self.keep}; for a number of samples use `count`"
            raise ValueError(msg)
        if self.count is not None and (self.count < 1 or self.count != int(self.count)):
            msg = f"`count` must be a whole number of at least 1, got {self.count}; for a share use `keep`"
            raise ValueError(msg)

    def size(self, batch: int, /) -> int:
        """Samples kept of a pool of `batch`: K = min(B, max(1, floor(keep B + 0.5)))."""
        if self.count is not None:
            return min(batch, self.count)
        keep = 1.0 if self.keep is None else self.keep
        return min(batch, max(1, int(keep * batch + 0.5)))


def top_k(scores: Array, length: Array, /, *, budget: Budget, groups: Array | None = None) -> Array:
    """Indices of the best scores, best first.

    Parameters
    ----------
    scores
        (batch,). Ties go to the lower index.
    length
        (batch,): scored rows of each sample. An empty sample comes after all that have rows and a score; a sample whose
        score is NaN comes last of all, since training on it would destroy the model.
    budget
        How many are kept, of the pool or of each group.
    groups
        (batch,) integers, one value a group (a micro-batch, a rank), or None.

    Returns
    -------
    Array
        (k,) distinct indices, int32, over all groups best first.

    Notes
    -----
    O(batch log batch). With `groups` the order is brought to the host.
    """
    xp = array_namespace(scores, length)
    check_device("length", length, like=scores, like_name="scores")
    batch = scores.shape[0]
    if scores.ndim != 1 or tuple(length.shape) != (batch,):
        msg = f"`scores` and `length` must have shape (batch,), got {tuple(scores.shape)} and {tuple(length.shape)}"
        raise ValueError(msg)
    order = _best_first(scores, length)
    if groups is None:
        return xp.astype(order[: budget.size(batch)], xp.int32, copy=False)
    if tuple(groups.shape) != (batch,):
        msg = f"`groups` must have shape ({batch},), got {tuple(groups.shape)}"
        raise ValueError(msg)
    ranked = to_numpy(order)
    group_of_ranked = to_numpy(groups)[ranked]
    kept = np.zeros(batch, dtype=bool)
    for group in np.unique(group_of_ranked):
        members = np.flatnonzero(group_of_ranked == group)
        kept[members[: budget.size(len(members))]] = True
    return constant(ranked[kept].astype(np.int32), like=scores)


def _best_first(scores: Array, length: Array) -> Array:
    """All indices: those with a score by score, then the empty ones, then those whose score is NaN."""
    xp = array_namespace(scores)
    unknown = xp.isnan(scores)
    by_score = xp.argsort(xp.where(unknown, xp.zeros_like(scores), scores), descending=True, stable=True)
    empty = xp.astype(length == 0, xp.int8)
    rank = xp.where(unknown, xp.full_like(empty, 2), empty)
    return xp.take(by_score, xp.argsort(xp.take(rank, by_score), stable=True))
