"""Random choices among those by score, and how well predictions rank them."""

from typing import Any, NamedTuple

import numpy as np

from .. import _random
from .._random import Stream

_PAIRS = 128  # explored samples that the rank correlation is taken over
_ENOUGH = 64  # and the fewest


class Mixed(NamedTuple):
    """An order of a pool in which a fraction of the places is drawn at random."""

    priority: np.ndarray[Any, Any]  # (batch,), higher is earlier
    place: np.ndarray[Any, Any]  # (batch,): where the sample stands among those drawn at random

    def explored(self, number: int, /) -> np.ndarray[Any, Any]:
        """Return which samples (batch,) are drawn at random where `number` are chosen."""
        return self.place < number


def mixed(
    scores: np.ndarray[Any, Any],
    explore: float,
    /,
    *,
    groups: np.ndarray[Any, Any] | None,
    seed: int,
    step: int,
) -> Mixed:
    """Mix an order by `scores` (batch,) with a random one that takes a fraction `explore` of the places.

    A sample stands at the earlier of its places in the two. Of the first K places, K times `explore` are drawn at
    random, rounded up or down at random. Each of the `groups` (batch,) has an order of its own. A sample whose score
    is NaN has the priority NaN.
    """
    batch = scores.shape[0]
    generator: Any = _random.generator(seed, Stream.EXPLORE, step)
    drawn, offset = generator.random(batch), generator.random()
    ends: Any = np.floor(np.arange(2 * batch + 2, dtype=np.float64) * explore + offset)
    is_drawn: np.ndarray[Any, Any] = ends[1:] > ends[:-1]
    by_score, place = np.empty(batch), np.empty(batch)
    for members in _members(batch, groups):
        place[members] = _places(np.flatnonzero(is_drawn), drawn[members])
        by_score[members] = _places(np.flatnonzero(~is_drawn), -scores[members])
    priority = -np.minimum(place, by_score)
    return Mixed(np.where(np.isnan(scores), np.nan, priority), place)


def _members(batch: int, groups: np.ndarray[Any, Any] | None) -> list[np.ndarray[Any, Any]]:
    if groups is None:
        return [np.arange(batch)]
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]


def _places(slots: np.ndarray[Any, Any], keys: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the slot of each sample when they fill `slots` by ascending `keys`; infinite beyond the last slot."""
    slots = np.concatenate([slots, np.full(keys.shape[0], np.inf)])[: keys.shape[0]]
    places = np.empty(keys.shape[0])
    places[np.argsort(keys, kind="stable")] = slots
    return places


class Pairs(NamedTuple):
    """Predictions and exact scores of the latest samples drawn at random, on the host; NaN where there are none yet."""

    predicted: np.ndarray[Any, Any]  # (window,)
    exact: np.ndarray[Any, Any]  # (window,)

    @classmethod
    def empty(cls) -> "Pairs":
        """Return empty windows."""
        nothing = np.full(_PAIRS, np.nan)
        return cls(nothing, nothing)

    def add(self, predicted: np.ndarray[Any, Any], exact: np.ndarray[Any, Any], /) -> "Pairs":
        """Return the windows after more pairs (n,) and (n,), of which those with NaN are left out."""
        known = np.isfinite(predicted) & np.isfinite(exact)
        return Pairs(
            np.concatenate([self.predicted, predicted[known]])[-_PAIRS:],
            np.concatenate([self.exact, exact[known]])[-_PAIRS:],
        )

    def correlation(self) -> float:
        """Return the rank correlation of predictions and exact scores; NaN while there are few, or all are the same."""
        known = np.isfinite(self.predicted)
        if known.sum() < _ENOUGH:
            return float("nan")
        x, y = (_ranks(side[known]) for side in (self.predicted, self.exact))
        size = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / size if size > 0 else float("nan")


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the ranks (n,) less their mean; equals share one."""
    ordered = np.sort(values)
    ranks = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")) / 2
    return ranks - ranks.mean()
