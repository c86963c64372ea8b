"""Glances: features of samples from token ids and input embeddings, before any layer runs."""

from __future__ import annotations

from typing import Any

from . import _options, _random
from ._array import (
    Array,
    array_namespace,
    at_least_one,
    check_device,
    constant,
    device,
    occurs,
    take,
    wide_dtype,
    widen,
)
from ._random import Stream
from .rows import IGNORE, check_mask

_LAST = 8  # tokens before the first target that have a mean of their own
COUNTS = 4  # last features, beside the means


def glance(
    token_ids: Array,
    targets: Array,
    embeddings: Array,
    /,
    *,
    mask: Array | None = None,
    prompt: Array | None = None,
    dim: int = 256,
    seed: int = 0,
) -> Array:
    r"""Describe each sample by its tokens and their input embeddings alone; no layer runs.

    .. math:: g_i = \bigl(\bar e(Y_i),\; \bar e(X_i),\; \bar e(X_i^{\text{last }8}),\;
        \log(1 + n_i),\; \log(1 + m_i),\; 1 / \max(n_i, 1),\; |Y_i \cap X_i| / n_i\bigr)

    Y_i: the n_i target tokens of sample i. X_i: the m_i tokens before the first of them. e: mean input embedding,
    projected by random signs where the table is wider, of targets to `dim` numbers, of prompts to a quarter of `dim`.

    Parameters
    ----------
    token_ids
        (batch, time) whole numbers. Those that the table does not have, such as placeholders of images, count as
        tokens but have no embedding.
    targets
        (batch, time) whole numbers: the target of each row, already shifted; -100 for none. Of an encoder-decoder model
        (batch, any time).
    embeddings
        (vocab, width), the input embedding table.
    mask
        (batch, time), true for a sample's own tokens. Default: all.
    prompt
        (batch, time), true for the tokens before the first target. Default: those up to the row that predicts the first
        target; all of the mask where there is no target, and where `targets` has another length than `token_ids`.
    dim
        Numbers that the mean embedding of targets is projected to, at most; of prompts at most a quarter of it.
    seed
        Of the projection.

    Returns
    -------
    array (batch, `glance_width`)
        In the dtype of `embeddings`, float32 for half floats. A sample's row depends on its own tokens alone: not on
        padding, on its place in a row, or on other samples. Zeros stand for means of no tokens.

    Raises
    ------
    ValueError, TypeError
        Where shapes, dtypes or devices do not fit.

    Notes
    -----
    O(batch time width) for the means, O(batch time log time) for the tokens in common. Source: this library.
    """
    xp = array_namespace(token_ids, targets, embeddings)
    _check(token_ids, targets, embeddings, dim=dim)
    token_ids, targets = (_signed(ids) for ids in (token_ids, targets))
    own = check_mask(mask, tuple(token_ids.shape), like=token_ids)
    own = xp.ones(token_ids.shape, dtype=xp.bool, device=device(token_ids)) if own is None else own
    trained = targets != IGNORE
    if targets.shape == token_ids.shape:
        trained = trained & own
    if prompt is None:
        before = _before(own, trained) if targets.shape == token_ids.shape else own
    else:
        given: Any = check_mask(prompt, tuple(token_ids.shape), like=token_ids, name="prompt")
        before = given & own
    last = before & (_count_after(before) < _LAST)
    (answer,), (prefix, end) = _means(targets, [trained], embeddings), _means(token_ids, [before, last], embeddings)
    means = [_projected(answer, dim=dim, seed=seed)]
    means += [_projected(mean, dim=_of_prompts(dim), seed=seed) for mean in (prefix, end)]
    dtype = answer.dtype
    number, length = (xp.sum(xp.astype(rows, dtype), axis=1) for rows in (trained, before))
    shared = _in_common(targets, trained, token_ids, before, dtype=dtype) / at_least_one(number)
    counts = xp.stack([xp.log1p(number), xp.log1p(length), 1 / at_least_one(number), shared], axis=1)
    return xp.concat([*means, counts], axis=1)


def glance_width(width: int, /, *, dim: int = 256) -> int:
    """Return the number of features in a glance at a table of `width` columns."""
    return min(width, dim) + 2 * min(width, _of_prompts(dim)) + COUNTS


def _of_prompts(dim: int) -> int:
    # most of what can be predicted stands in the targets
    return max(1, dim // 4)


def _check(token_ids: Array, targets: Array, embeddings: Array, *, dim: int) -> None:
    xp = array_namespace(token_ids)
    _options.whole("dim", dim)
    for name, ids in (("token_ids", token_ids), ("targets", targets)):
        if ids.ndim != 2 or not xp.isdtype(ids.dtype, "integral"):
            msg = f"`{name}` must be whole numbers (batch, time), got {ids.dtype} of shape {tuple(ids.shape)}"
            raise ValueError(msg)
        check_device(name, ids, like=embeddings, like_name="embeddings")
    if targets.shape[0] != token_ids.shape[0]:
        msg = f"`targets` must have a row for each of the {token_ids.shape[0]} samples, got {targets.shape[0]}"
        raise ValueError(msg)
    wide_dtype(embeddings, name="embeddings")
    if embeddings.ndim != 2:
        msg = f"`embeddings` must be a table (vocab, width), got shape {tuple(embeddings.shape)}"
        raise ValueError(msg)


def _signed(ids: Array) -> Array:
    """Return `ids` in a dtype that has the number of what is no token."""
    xp = array_namespace(ids)
    return xp.astype(ids, xp.int32) if xp.isdtype(ids.dtype, "unsigned integer") else ids


def _before(own: Array, trained: Array) -> Array:
    """Return the own tokens up to the row that predicts the first target."""
    xp = array_namespace(own)
    if not own.shape[1]:
        return own
    place = xp.arange(own.shape[1], dtype=xp.int32, device=device(own))[None, :]
    first = xp.min(xp.where(trained, place, xp.full_like(place, own.shape[1])), axis=1, keepdims=True)
    return own & (place <= first)


def _count_after(rows: Array) -> Array:
    """Return the number of `rows` (batch, time) after each place."""
    xp = array_namespace(rows)
    if not rows.shape[1]:
        return xp.zeros(rows.shape, dtype=xp.int32, device=device(rows))
    number = xp.astype(rows, xp.int32)
    return xp.sum(number, axis=1, keepdims=True, dtype=xp.int32) - xp.cumulative_sum(number, axis=1, dtype=xp.int32)


def _means(ids: Array, choices: list[Array], embeddings: Array) -> list[Array]:
    """Return, for each of `choices` of rows (batch, time), the mean embedding (batch, width) of their tokens.

    Zeros where there are none.
    """
    xp = array_namespace(ids)
    batch, time = ids.shape
    vocab, width = embeddings.shape
    if not (time and vocab):
        nothing = xp.zeros((batch, width), dtype=widen(embeddings[:0, :]).dtype, device=device(ids))
        return [nothing for _ in choices]
    known = (ids >= 0) & (ids < vocab) & xp.any(xp.stack(choices, axis=0), axis=0)
    # in places that do not count stands a token of the sample's own: NaN of another would get through a weight of 0
    own = xp.max(xp.where(known, ids, xp.zeros_like(ids)), axis=1, keepdims=True)
    index = xp.where(known, ids, own)
    taken = widen(xp.reshape(take(embeddings, xp.reshape(index, (-1,))), (batch, time, width)))
    weight = xp.astype(xp.stack([rows & known for rows in choices], axis=1), taken.dtype)
    total, number = weight @ taken, xp.sum(weight, axis=2)[:, :, None]
    mean = total / at_least_one(number)
    mean = xp.where(number > 0, mean, xp.zeros_like(mean))
    return [mean[:, i, :] for i in range(len(choices))]


def _projected(mean: Array, *, dim: int, seed: int) -> Array:
    """Project (batch, width) to at most `dim` numbers, with the same lengths on average."""
    width = mean.shape[1]
    if width <= dim:
        return mean
    signs = _random.signs(seed, Stream.GLANCE, 0, (width, dim))
    return mean @ constant(signs / dim**0.5, like=mean, dtype=mean.dtype)


def _in_common(targets: Array, trained: Array, token_ids: Array, before: Array, *, dtype: Any) -> Array:
    """Return the number (batch,) of target tokens that also occur in the prompt."""
    xp = array_namespace(targets)
    if not (targets.shape[0] and targets.shape[1] and token_ids.shape[1]):
        return xp.zeros(targets.shape[:1], dtype=dtype, device=device(targets))
    # ids outside of a prompt become one that no target has
    prompts = xp.sort(xp.where(before, token_ids, xp.full_like(token_ids, -1)), axis=1)
    return xp.sum(xp.astype(occurs(targets, prompts) & trained, dtype), axis=1)
