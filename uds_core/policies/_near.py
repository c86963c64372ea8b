"""Near-duplicates among candidates: the nearest sample that is remembered, or comes earlier in the pool."""

import numpy as np

from .._array import Array, accumulation_dtype, array_namespace, constant, device
from ..memory import Memory, distances
from ..ngrams import similarity

_BLOCK = 512  # candidates that are compared with all others at a time: whole data sets are scored as one pool


def nearest_distance(sketch: Array, able: Array, memory: Memory, /, *, rows: slice = slice(None)) -> Array:
    """Return the distance to the nearest sketch that is remembered or comes earlier in the pool, of the samples `rows`.

    Infinite where there is none, and for samples not `able` (batch,). O(rows (memory + batch) dim).
    """
    xp = array_namespace(sketch)
    batch = sketch.shape[0]
    place = constant(np.arange(batch, dtype=np.int32), like=sketch)
    points, places = sketch[rows, ...], place[rows]
    near = xp.full(points.shape[:1], xp.inf, dtype=accumulation_dtype(sketch), device=device(sketch))
    for start in range(0, batch if points.shape[0] else 0, _BLOCK):
        here = slice(start, min(start + _BLOCK, batch))
        before = (place[None, here] < places[:, None]) & able[None, here]
        apart = distances(points, sketch[here, ...])
        near = xp.minimum(near, xp.min(xp.where(before, apart, xp.full_like(apart, xp.inf)), axis=1))
    if points.shape[0] and memory.size:
        near = xp.minimum(near, xp.min(distances(points, memory.filled), axis=1))
    return xp.where(able[rows], near, xp.full_like(near, xp.inf))


def highest_similarity(ngrams: Array, able: Array, memory: Memory, /, *, rows: slice = slice(None)) -> Array:
    """Return the `similarity` to the most similar sample that is remembered or earlier in the pool, of samples `rows`.

    0 where there is none, and for samples not `able` (batch,). O(rows (memory + batch) dim).
    """
    xp = array_namespace(ngrams)
    batch = ngrams.shape[0]
    place = constant(np.arange(batch, dtype=np.int32), like=ngrams)
    others = xp.concat([memory.filled, ngrams], axis=0)
    parts: list[Array] = [xp.zeros((0,), dtype=xp.float32, device=device(ngrams))]
    first, last, _ = rows.indices(batch)
    for start in range(first, last, _BLOCK):
        here = slice(start, min(start + _BLOCK, last))
        before = (place[None, :] < place[here, None]) & able[None, :]
        remembered = xp.ones((before.shape[0], memory.size), dtype=xp.bool, device=device(ngrams))
        among = xp.concat([remembered, before], axis=1)
        parts.append(similarity(ngrams[here, :], others, among=among))
    similar = xp.concat(parts)
    return xp.where(able[rows], similar, xp.zeros_like(similar))
