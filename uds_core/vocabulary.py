"""Softmax sums estimated from a random sample of the vocabulary, frequent tokens first."""

import functools

import numpy as np

from . import _options, _random
from ._array import Array, array_namespace, constant, constant_in_graphs, widen
from ._random import Stream
from .logits import Logits
from .rows import check_vocabulary
from .softmax import RowSums, known_targets, logit_blocks


def sampled_sums(logits: Logits, targets: Array, /, *, number: int, seed: int, block_bytes: int) -> RowSums:
    r"""Return estimates of `row_sums` without moments, from about `number` tokens and each row's target.

    .. math:: \hat Z_t = e^{L_{t y_t}} + \sum_{v \in S, v \ne y_t} \frac{1}{\pi_v} e^{L_{tv}}, \qquad
        \pi_v = P(v \in S) = \min\left(1, \frac{c}{v + 1}\right)

    The same sample S for all rows. O(batch time width number) through a head.

    Notes
    -----
    The sum is unbiased over seeds; its logarithm is too low on average. Tokenizers that merge or prune number their
    tokens by frequency, about, so that those that carry most of the sum are always there.
    """
    xp = array_namespace(logits.like)
    vocab = logits.shape[2]
    check_vocabulary(vocab)
    ids, weights = sample(vocab, number, seed)
    factors = constant(weights, like=logits.like, dtype=logits.dtype)
    known = known_targets(targets, vocab)
    logit = logits.at(xp.where(known, targets, xp.zeros_like(targets)))
    top, total = logit, xp.ones_like(logit)
    for start, values, _ in logit_blocks(logits.of_tokens(constant(ids, like=logits.like)), block_bytes):
        block, here = widen(values), slice(start, start + values.shape[2])
        higher = xp.maximum(top, xp.max(block, axis=2))
        powers = xp.exp(block - higher[:, :, None]) * factors[here][None, None, :]
        tokens = constant(ids[here], like=targets, dtype=targets.dtype)
        powers = xp.where(tokens[None, None, :] == targets[:, :, None], xp.zeros_like(powers), powers)
        total = total * xp.exp(top - higher) + xp.sum(powers, axis=2)
        top = higher
    return RowSums(top, total, xp.zeros_like(total), xp.where(known, logit, xp.full_like(logit, xp.nan)))


@functools.lru_cache(maxsize=16)
@constant_in_graphs
def sample(vocab: int, number: int, seed: int, /) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of about `number` tokens, in order, int32, and one over their probabilities of being there.

    All tokens, with ones, where there are no more.
    """
    _options.whole("vocabulary", number)
    start = float(_random.generator(seed, Stream.VOCABULARY_SAMPLE).random())
    probabilities = inclusion(vocab, number)
    ids = systematic(probabilities, start)
    return ids, 1 / probabilities[ids]


def inclusion(vocab: int, number: int, /) -> np.ndarray:
    """Return min(1, c / (v + 1)) for each token v, with the c for which they add up to `number`."""
    if number >= vocab:
        return np.ones(vocab)
    falling = 1 / np.arange(1, vocab + 1)
    low, high = 0.0, float(vocab)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * falling).sum() < number else (low, middle)
    return np.minimum(1, high * falling)


def systematic(probabilities: np.ndarray, start: float, /) -> np.ndarray:
    """Return the places, in order, that are drawn with these probabilities: where their sum passes n + `start`.

    `start` is uniform in [0, 1). Each is drawn at most once, and their number is that of all probabilities, rounded.
    """
    passed = np.floor(np.cumsum(probabilities) + start)
    return np.flatnonzero(np.diff(passed, prepend=np.floor(start)) > 0).astype(np.int32)
