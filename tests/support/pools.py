"""Pools of candidates for the tests of policies: made in NumPy, seen by the tested code alone as another library's."""

from typing import Any, NamedTuple

import numpy as np

import uds_core as uds

BATCH, TIME, WIDTH, VOCAB = 6, 7, 5, 40
WEIGHT = np.random.default_rng(99).normal(size=(VOCAB, WIDTH))
EMBEDDINGS = np.random.default_rng(98).normal(size=(VOCAB, WIDTH))


class Pool(NamedTuple):
    """Samples of a data set of twelve, so that pools share some; lengths differ."""

    hidden: Any
    mask: Any
    labels: Any
    ids: Any = None
    reference_loss: Any = None
    tokens: Any = None

    def take(self, index) -> "Pool":
        return Pool(*(part[index] for part in self))

    def padded(self, left, right) -> "Pool":
        pad = ((0, 0), (left, right))
        return self._replace(
            hidden=np.pad(self.hidden, (*pad, (0, 0)), constant_values=7.0),
            mask=np.pad(self.mask, pad),
            labels=np.pad(self.labels, pad, constant_values=-100),
            tokens=np.pad(self.tokens, pad),
        )

    @property
    def logits(self):
        return self.hidden @ WEIGHT.T

    @property
    def scored(self):
        return self.mask & (self.labels != -100)

    @property
    def length(self):
        return self.scored.sum(axis=1)


def samples(seed, batch=BATCH, time=TIME) -> Pool:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(batch, time, WIDTH)) * rng.uniform(0.5, 2, size=(batch, 1, 1))
    mask = np.arange(time) < rng.integers(3, time + 1, size=(batch, 1))
    labels = np.where(mask & (np.arange(time) >= 1), rng.integers(0, VOCAB, size=(batch, time)), -100)
    ids = rng.permutation(max(12, batch))[:batch]
    reference_loss = rng.uniform(2, 5, size=batch)
    return Pool(hidden, mask, labels, ids, reference_loss, rng.integers(0, VOCAB, size=(batch, time)))


def candidates(backend, pool, *, dense=False, validation=True) -> uds.Candidates:
    given: dict[str, Any] = {name: backend.array(getattr(pool, name)) for name in ("mask", "labels")}
    if pool.ids is not None:
        given["ids"] = backend.array(pool.ids)
        given["reference_loss"] = backend.array(pool.reference_loss, "float32")
    if pool.tokens is not None:
        tokens, table = backend.array(pool.tokens), backend.array(EMBEDDINGS, "float32")
        given["glance"] = uds.glance(tokens, given["labels"], table, mask=given["mask"])
        given["ngram_counts"] = uds.ngram_counts(tokens, mask=given["mask"], buckets=64)
        given["ngrams"] = uds.ngram_sketch(tokens, mask=given["mask"], dim=16)
    hidden = backend.array(pool.hidden, "float32")
    if validation:
        given["validation"] = candidates(backend, samples(77, batch=2), dense=dense, validation=False)
    if dense:
        return uds.Candidates(backend.array(pool.logits, "float32"), hidden=hidden, **given)
    return uds.Candidates(uds.Head(backend.array(WEIGHT, "float32"))(hidden), **given)


def warm(policy, backend, steps=3) -> Any:
    """A state with something in it."""
    state = None
    for step in range(steps):
        features = policy.examine(candidates(backend, samples(1000 + step)))
        _, state = policy.choose(state, features)
    return state


def picks(policy, backend, state, *pools, groups=None, dense=False):
    """Indices, the selection, and the next state, of a pool that comes in parts."""
    features = uds.pool([policy.examine(candidates(backend, pool, dense=dense)) for pool in pools])
    selection, state = policy.choose(state, features, groups=groups)
    return backend.numpy(selection.indices).tolist(), selection, state


def low(backend):
    """The Gram matrix is accumulated in float32 there."""
    return "float64" not in backend.floats
