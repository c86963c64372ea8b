"""Near-duplicates among candidates: the nearest sample that is remembered, or comes earlier in the pool."""

import numpy as np

from .._array import Array, accumulation_dtype, array_namespace, constant, device
from ..memory import Memory, distances
from ..ngrams import similarity

_BLOCK = 512  # candidates that are compared with all others at a time: whole data sets are scored as one pool


def nearest_distance(sketch: Array, able: Array, memory: Memory, /) -> Array:
    """Return each sample's distance (batch,) to the nearest sketch that is remembered or comes earlier in the pool.

    Infinite where there is none, and for samples not `able` (batch,). O(batch (memory + batch) dim).
    """
    xp = array_namespace(sketch)
    batch = sketch.shape[0]
    place = constant(np.arange(batch, dtype=np.int32), like=sketch)
    near = xp.full(sketch.shape[:1], xp.inf, dtype=accumulation_dtype(sketch), device=device(sketch))
    for start in range(0, batch, _BLOCK):
        here = slice(start, min(start + _BLOCK, batch))
        before = (place[None, here] < place[:, None]) & able[None, here]
        apart = distances(sketch, sketch[here, ...])
        near = xp.minimum(near, xp.min(xp.where(before, apart, xp.full_like(apart, xp.inf)), axis=1))
    if batch and memory.size:
        near = xp.minimum(near, xp.min(distances(sketch, memory.filled), axis=1))
    return xp.where(able, near, xp.full_like(near, xp.inf))


def highest_similarity(ngrams: Array, able: Array, memory: Memory, /) -> Array:
    """Return each sample's `similarity` (batch,) to the most similar one that is remembered or earlier in the pool.

    0 where there is none, and for samples not `able` (batch,). O(batch (memory + batch) dim).
    """
    xp = array_namespace(ngrams)
    batch = ngrams.shape[0]
    place = constant(np.arange(batch, dtype=np.int32), like=ngrams)
    others = xp.concat([memory.filled, ngrams], axis=0)
    parts: list[Array] = [xp.zeros((0,), dtype=xp.float32, device=device(ngrams))]
    for start in range(0, batch, _BLOCK):
        here = slice(start, min(start + _BLOCK, batch))
        before = (place[None, :] < place[here, None]) & able[None, :]
        remembered = xp.ones((before.shape[0], memory.size), dtype=xp.bool, device=device(ngrams))
        among = xp.concat([remembered, before], axis=1)
        parts.append(similarity(ngrams[here, :], others, among=among))
    similar = xp.concat(parts)
    return xp.where(able, similar, xp.zeros_like(similar))
