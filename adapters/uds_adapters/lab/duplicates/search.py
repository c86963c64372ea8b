"""Search for near-duplicates among sketches, without comparing all pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sketches import Sketches

__all__ = ["Duplicates", "search"]

_COMMON = 0.05  # as in `Fresh`: a number that a larger fraction of the records shares is that of a template,
_FEW = 2  # unless so few share it;
_SPECIFIC = 4  # with fewer numbers beside templates, a record repeats only one of the same words
_COLUMNS = 16  # columns whose pairs are compared before the next ones are looked up
_PAIRS = 2**15  # compared at a time


class Duplicates(NamedTuple):
    """For each record the first one that it repeats, and how similar they are."""

    original: np.ndarray  # (n,) int64: -1 for none
    similarity: np.ndarray  # (n,) float32: to the original; 0 where there is none
    equal: np.ndarray  # (n,) bool: whether an earlier record has the same words


class _Distinct(NamedTuple):
    """Records of which no two have the same words."""

    place: np.ndarray  # (m,) among all records
    numbers: np.ndarray  # (m, DIM) their sketches
    counts: np.ndarray  # (m, DIM) which numbers are compared: those that are not of a template

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the fraction of equal numbers (k,) among those of records `a` (k,) that are not of a template."""
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(a), _PAIRS):
            one, other = a[start : start + _PAIRS], b[start : start + _PAIRS]
            same, counts = self.numbers[one] == self.numbers[other], self.counts[one]
            number = counts.sum(axis=1)
            share = (same & counts).sum(axis=1) / np.maximum(number, 1)
            parts.append(np.where(number < _SPECIFIC, 0, share).astype(np.float32))
        return np.concatenate(parts)


def search(sketches: Sketches, /, *, threshold: float) -> Duplicates:
    """Return the near-duplicates: records similar to an earlier one that is not itself a near-duplicate.

    Parameters
    ----------
    sketches
        Of all records, in the order of the file.
    threshold
        Fraction of n-grams in common, templates left out, from which records count as near-duplicates.

    Notes
    -----
    Two records are compared if, for some number of the sketch, one is the last before the other that has the same: a
    pair with a fraction J of its numbers in common is missed where others stand between them in all of J DIM places.
    O(DIM n log n), and at most 64 DIM bytes for each record.
    """
    original, equal = _equal(sketches)
    similarity = equal.astype(np.float32)
    place = np.flatnonzero(~equal)
    numbers = sketches.numbers[place]
    distinct = _Distinct(place, numbers, _specific(numbers))
    for later, others in _similar_pairs(distinct, sketches.words[place] == 0, threshold).items():
        similar, first = _nearest_kept(later, others, original, distinct)
        if similar >= threshold:
            similarity[place[later]], original[place[later]] = similar, first
    repeated = np.flatnonzero(equal)
    indirect = repeated[original[original[repeated]] >= 0]  # equal to one that is itself a near-duplicate
    similarity[indirect] = similarity[original[indirect]]
    original[indirect] = original[original[indirect]]
    return Duplicates(original, similarity, equal)


def _equal(sketches: Sketches) -> tuple[np.ndarray, np.ndarray]:
    """Return the first record of the same words, -1 for none, and whether there is one. Empty records equal none."""
    _, first, inverse = np.unique(sketches.exact, return_index=True, return_inverse=True)
    first = first[inverse.reshape(-1)]
    repeats = (first != np.arange(len(first))) & (sketches.words > 0)
    return np.where(repeats, first, -1), repeats


def _specific(numbers: np.ndarray) -> np.ndarray:
    """Return which numbers (n, DIM) are not those of a template."""
    limit = _FEW + int(_COMMON * max(len(numbers) - 1, 0))
    counts = np.empty(numbers.shape, dtype=bool)
    for j in range(numbers.shape[1]):
        _, inverse, sizes = np.unique(numbers[:, j], return_inverse=True, return_counts=True)
        counts[:, j] = sizes[inverse.reshape(-1)] - 1 <= limit
    return counts


def _similar_pairs(distinct: _Distinct, empty: np.ndarray, threshold: float) -> dict[int, list[int]]:
    """Return, for records in order, the earlier ones that are similar enough: those found by neighbours in columns."""
    n = len(distinct.place)
    known = np.zeros(0, np.int64)
    for start in range(0, distinct.numbers.shape[1], _COLUMNS):
        columns = range(start, start + _COLUMNS)
        keys = [_neighbours(distinct.numbers[:, j], distinct.counts[:, j] & ~empty) for j in columns]
        new = np.setdiff1d(np.unique(np.concatenate(keys)), known, assume_unique=True)
        later, earlier = np.divmod(new, max(n, 1))
        known = np.union1d(known, new[distinct.similarity(later, earlier) >= threshold])
    pairs: dict[int, list[int]] = {}
    for key in known.tolist():
        pairs.setdefault(key // n, []).append(key % n)
    return pairs


def _neighbours(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return pairs, as later * n + earlier, of records that follow each other among those of one number."""
    order = np.argsort(column, kind="stable")
    same = (column[order[1:]] == column[order[:-1]]) & counts[order[1:]]
    return order[1:][same].astype(np.int64) * len(column) + order[:-1][same]


def _nearest_kept(later: int, others: list[int], original: np.ndarray, distinct: _Distinct) -> tuple[float, int]:
    """Return similarity and number of the most similar earlier record that is kept.

    Where one of `others` is not kept itself, the record that it repeats takes its place.
    """
    first = original[distinct.place[others]]
    kept = np.unique(np.where(first < 0, others, np.searchsorted(distinct.place, first)))
    similar = distinct.similarity(np.full(len(kept), later), kept)
    best = int(similar.argmax())
    return float(similar[best]), int(distinct.place[kept[best]])
