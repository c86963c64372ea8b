"""Sketches of token n-grams, and the similarity of samples by them: near-duplicates without a forward pass."""

from __future__ import annotations

import numpy as np

from . import _options, _random
from ._array import Array, array_namespace, check_device, constant, device
from ._random import Stream
from .rows import check_mask

_EMPTY = 2**31 - 1  # in every place of the sketch of a sample without tokens
_BLOCK = 2**22  # hashes made, or numbers compared, at a time
_COMMON = 0.05  # a number of a sketch that a larger fraction of other samples shares is that of a template
_LOW = 64  # columns that the buckets of counts stand in
_FEW = 2  # others may always share it: in a small pool these are a large fraction
_SPECIFIC = 4  # the fewest numbers beside templates that a similarity is taken over
_MIX = (-1640531527, 2146121005, -2073254261)  # odd multipliers of 32 bits


def ngram_sketch(token_ids: Array, /, *, mask: Array | None = None, n: int = 4, dim: int = 128, seed: int = 0) -> Array:
    r"""Sketch the set of token n-grams of each sample by `dim` smallest hashes (MinHash).

    .. math:: z_{ij} = \min_{g \in G_i} h_j(g), \qquad P(z_{ij} = z_{kj}) = \frac{|G_i \cap G_k|}{|G_i \cup G_k|}

    G_i: the n-grams of sample i. A sample of fewer than n tokens has one: all that it has.

    Parameters
    ----------
    token_ids
        (batch, time) whole numbers below 2**31.
    mask
        (batch, time), true for a sample's own tokens, which stand next to each other. Default: all.
    n
        Tokens in an n-gram.
    dim
        Numbers in a sketch: the similarity of two samples has a standard error of at most 1 / (2 sqrt(dim)).
    seed
        Of the hash functions.

    Returns
    -------
    array (batch, dim) of int32
        Of a sample without tokens 2**31 - 1 throughout. A row depends on the sample's own tokens alone.

    Raises
    ------
    ValueError, TypeError
        Where shapes, dtypes or devices do not fit.

    Notes
    -----
    O(batch time dim) multiplications of whole numbers, the same on every array library. Source: Broder (1997).
    """
    _options.whole("n", n)
    _options.whole("dim", dim)
    ids, own = _checked_tokens(token_ids, mask)
    xp = array_namespace(ids)
    grams, there = _grams(ids, own, n)
    batch, time = grams.shape
    drawn = _random.generator(seed, Stream.NGRAMS).integers(-(2**31), 2**31, size=(2, dim), dtype=np.int64)
    factors, offsets = (constant(row.astype(np.int32), like=token_ids) for row in (drawn[0] | 1, drawn[1]))
    size = max(1, _BLOCK // max(1, batch * time))
    blocks = [slice(start, min(start + size, dim)) for start in range(0, dim, size)]
    parts = [_least(grams, there, factors[block], offsets[block]) for block in blocks]
    return xp.concat(parts, axis=1)


def ngram_counts(token_ids: Array, /, *, mask: Array | None = None, buckets: int = 1024) -> Array:
    """Count the tokens and the pairs of neighbouring tokens of each sample, hashed into buckets.

    Parameters
    ----------
    token_ids
        (batch, time) whole numbers below 2**31.
    mask
        (batch, time), true for a sample's own tokens, which stand next to each other. Default: all.
    buckets
        A multiple of 64.

    Returns
    -------
    array (batch, buckets) of float32
        A row depends on the sample's own tokens alone; it adds up to 2 n - 1 for n of them.

    Raises
    ------
    ValueError, TypeError
        Where shapes, dtypes or devices do not fit.

    Notes
    -----
    O(batch time buckets), a matrix product. Source: the features of DSIR, Xie et al., arXiv 2302.03169.
    """
    _options.whole("buckets", buckets)
    if buckets % _LOW:
        msg = f"`buckets` must be a multiple of {_LOW}, got {buckets}"
        raise ValueError(msg)
    ids, own = _checked_tokens(token_ids, mask)
    single = _mixed(ids * _MIX[0])
    first, second = max(ids.shape[1] - 1, 0), min(ids.shape[1], 1)
    pairs = _mixed(single[:, :first] * _MIX[0] + ids[:, second:] + 1)
    counts = _histogram(single, own, buckets)
    return counts + _histogram(pairs, own[:, :first] & own[:, second:], buckets)


def _histogram(hashes: Array, there: Array, buckets: int) -> Array:
    """Count hashes (batch, n) in buckets (batch, buckets): the product of what stands in rows and in columns."""
    xp = array_namespace(hashes)
    place = (hashes & _EMPTY) % buckets
    high, low = (
        xp.arange(number, dtype=xp.int32, device=device(hashes))[None, None, :] for number in (buckets // _LOW, _LOW)
    )
    rows = xp.astype((place[:, :, None] // _LOW == high) & there[:, :, None], xp.float32)
    columns = xp.astype(place[:, :, None] % _LOW == low, xp.float32)
    return xp.reshape(xp.matrix_transpose(rows) @ columns, (hashes.shape[0], buckets))


def jaccard(a: Array, b: Array, /) -> Array:
    """Return the similarity (m, n) of the n-grams of samples by their sketches, `a` (m, dim) and `b` (n, dim).

    The fraction of equal numbers, an unbiased estimate of intersection over union; 0 for a sample without tokens.
    O(m n dim).
    """
    xp = array_namespace(a, b)
    check_device("b", b, like=a, like_name="a")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        msg = (
            "`a` and `b` must be sketches (m, dim) and (n, dim) with the same `dim` of at least 1, got shapes "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
        raise ValueError(msg)
    if not all(xp.isdtype(x.dtype, "integral") for x in (a, b)):
        msg = f"`a` and `b` must be results of `ngram_sketch`, whole numbers, got {a.dtype} and {b.dtype}"
        raise TypeError(msg)
    size = max(1, _BLOCK // max(1, b.shape[0] * b.shape[1]))
    starts = range(0, a.shape[0], size)
    parts = [_equal(a[start : min(start + size, a.shape[0]), :], b) for start in starts]
    return xp.concat(parts, axis=0) if parts else xp.zeros((0, b.shape[0]), dtype=xp.float32, device=device(a))


def similarity(a: Array, b: Array, /, *, among: Array) -> Array:
    """Return the highest similarity (m,) of each sample to those it is compared with, templates left out.

    As in `jaccard`, but over those numbers of a sketch alone that at most 5 % of the others share (two may always share
    them): those of a system prompt or another template, which many samples have in common, are left out. Where fewer
    than 4 remain, the similarity is 1 to a sample with the same sketch, and 0 to any other.

    Parameters
    ----------
    a, b
        Sketches (m, dim) and (n, dim); each sample of `a` stands in `b`, too.
    among
        (m, n), true where a sample of `a` is compared with one of `b`; 0 is returned where with none.

    Notes
    -----
    O(m n dim).
    """
    xp = array_namespace(a, b, among)
    size = max(1, _BLOCK // max(1, b.shape[0] * b.shape[1]))
    starts = range(0, a.shape[0], size)
    blocks = [slice(start, min(start + size, a.shape[0])) for start in starts]
    parts = [_most_similar(a[block, :], b, among[block, :]) for block in blocks]
    return xp.concat(parts, axis=0) if parts else xp.zeros((0,), dtype=xp.float32, device=device(a))


def _most_similar(a: Array, b: Array, among: Array) -> Array:
    xp = array_namespace(a, b)
    if not b.shape[0]:
        return xp.zeros(a.shape[:1], dtype=xp.float32, device=device(a))
    same = xp.astype(_same(a, b), xp.int8)
    shared = xp.sum(same, axis=1, dtype=xp.int32) - 1
    counts = shared <= _FEW + int(_COMMON * (b.shape[0] - 1))
    number = xp.sum(xp.astype(counts, xp.int32), axis=1, keepdims=True, dtype=xp.int32)
    few = number < _SPECIFIC
    counts = xp.where(few, xp.ones_like(counts), counts)
    number = xp.where(few, xp.full_like(number, a.shape[1]), number)
    equal = xp.sum(same * xp.astype(counts, xp.int8)[:, None, :], axis=2, dtype=xp.int32)
    most = xp.max(xp.where(among & (~few | (equal == number)), equal, xp.zeros_like(equal)), axis=1)
    return xp.astype(most, xp.float32) / xp.astype(number[:, 0], xp.float32)


def _equal(a: Array, b: Array) -> Array:
    xp = array_namespace(a, b)
    return xp.mean(xp.astype(_same(a, b), xp.float32), axis=2)


def _same(a: Array, b: Array) -> Array:
    """Return which numbers are equal (m, n, dim); none of a sample without tokens."""
    return (a[:, None, :] == b[None, :, :]) & (a != _EMPTY)[:, None, :]


def _checked_tokens(token_ids: Array, mask: Array | None) -> tuple[Array, Array]:
    """Return token ids as int32, and which of them are a sample's own; raise where they do not fit."""
    xp = array_namespace(token_ids)
    if token_ids.ndim != 2 or not xp.isdtype(token_ids.dtype, "integral"):
        msg = f"`token_ids` must be whole numbers (batch, time), got {token_ids.dtype} of {tuple(token_ids.shape)}"
        raise ValueError(msg)
    own = check_mask(mask, tuple(token_ids.shape), like=token_ids)
    own = xp.ones(token_ids.shape, dtype=xp.bool, device=device(token_ids)) if own is None else own
    return xp.astype(token_ids, xp.int32, copy=False), own


def _grams(ids: Array, own: Array, n: int) -> tuple[Array, Array]:
    """Return a hash of the n-gram that begins at each place (batch, time + 1), and whether one does."""
    xp = array_namespace(ids)
    batch = ids.shape[0]
    # past its last token a sample goes on with a token that none has, so that short samples have n-grams too
    beyond = xp.full((batch, n), -1, dtype=xp.int32, device=device(ids))
    outside = xp.full((batch, n), False, dtype=xp.bool, device=device(ids))
    tokens = xp.concat([xp.where(own, ids, xp.full_like(ids, -1)), beyond], axis=1)
    there = xp.concat([own, outside], axis=1)
    time = ids.shape[1] + 1
    grams = xp.zeros((batch, time), dtype=xp.int32, device=device(ids))
    for i in range(n):
        grams = _mixed(grams * _MIX[0] + tokens[:, i : time + i])
    number = xp.sum(xp.astype(own, xp.int32), axis=1, keepdims=True, dtype=xp.int32)
    place = xp.arange(time, dtype=xp.int32, device=device(ids))[None, :]
    first = xp.min(xp.where(there[:, :time], place, xp.full_like(place, time)), axis=1, keepdims=True)
    whole = there[:, :time] & there[:, n - 1 : time + n - 1]
    return grams, whole | ((place == first) & there[:, :time] & (number < n))


def _mixed(x: Array) -> Array:
    """Mix whole numbers of 32 bits: each bit depends on those above and below it."""
    x = (x ^ (x >> 15)) * _MIX[1]
    x = (x ^ (x >> 13)) * _MIX[2]
    return x ^ (x >> 16)


def _least(grams: Array, there: Array, factors: Array, offsets: Array) -> Array:
    """Return the least hash (batch, dim) of the n-grams of each sample, for each hash function."""
    xp = array_namespace(grams)
    hashes = _mixed(grams[:, :, None] * factors[None, None, :] + offsets[None, None, :])
    none = xp.full((1, 1, 1), _EMPTY, dtype=xp.int32, device=device(grams))
    return xp.min(xp.where(there[:, :, None], hashes, none), axis=1)
