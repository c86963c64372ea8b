"""Rows of logits matrices: masks, positions, blocks and centres."""

from __future__ import annotations

from . import _options
from ._array import Array, array_namespace, check_device, device

IGNORE = -100  # the target of a row that carries no loss
BLOCK_BYTES = 64 * 2**20  # enough for fast matrix products, small beside a model


def check_mask(mask: Array | None, shape: tuple[int, ...], /, *, like: Array, name: str = "mask") -> Array | None:
    """Return `mask` as booleans, after making sure that it is (batch, time) and lies where `like` does."""
    if mask is None:
        return None
    xp = array_namespace(mask, like)
    check_device(name, mask, like=like, like_name="logits")
    if tuple(mask.shape) != tuple(shape):
        msg = (
            f"`{name}` must have shape (batch, time) = {tuple(shape)}, one entry for each row, got {tuple(mask.shape)}"
        )
        raise ValueError(msg)
    return mask if mask.dtype == xp.bool else mask != 0


def positions(mask: Array, /) -> Array:
    """Return each row's position (batch, time) from its sample's first scored row, gaps included; 0 before it."""
    xp = array_namespace(mask)
    if not mask.shape[1]:
        return xp.zeros(mask.shape, dtype=xp.int32, device=device(mask))
    time = xp.arange(mask.shape[1], dtype=xp.int32, device=device(mask))[None, :]
    first = xp.min(xp.where(mask, time, xp.full_like(time, mask.shape[1])), axis=1, keepdims=True)
    after = time - first
    return xp.where(after > 0, after, xp.zeros_like(after))


def clean_rows(rows: Array, mask: Array | None) -> Array:
    """Return `rows` with zeros outside `mask`, where they may hold anything, and NaN in rows that are not finite."""
    return masked_rows(rows, mask, finite_rows(rows))


def finite_rows(rows: Array, /) -> Array:
    """Return whether all numbers of each row (..., n) are finite: (..., 1). Two reductions, which copy nothing."""
    xp = array_namespace(rows)
    if 0 in rows.shape:  # a row of no numbers is finite
        return xp.ones((*rows.shape[:-1], 1), dtype=xp.bool, device=device(rows))
    # NaN passes through both, and is neither
    below, above = xp.max(rows, axis=-1, keepdims=True), xp.min(rows, axis=-1, keepdims=True)
    return (below < float("inf")) & (above > -float("inf"))


def masked_rows(rows: Array, mask: Array | None, finite: Array | None) -> Array:
    """Return `rows` with zeros outside `mask` and NaN where not `finite` (batch, time, 1); None: all are finite."""
    xp = array_namespace(rows)
    if mask is None:
        return rows if finite is None else xp.where(finite, rows, xp.full_like(finite, xp.nan, dtype=rows.dtype))
    scored = mask[:, :, None]
    nothing = xp.zeros(scored.shape, dtype=rows.dtype, device=device(rows))
    if finite is None:
        return xp.where(scored, rows, nothing)
    return xp.where(finite & scored, rows, xp.where(scored, xp.full_like(nothing, xp.nan), nothing))


def check_vocabulary(vocab: int, /) -> None:
    """Raise where logits have no columns, so that no token can be predicted."""
    if not vocab:
        msg = "`logits` have no vocabulary: shape (batch, time, vocab) with a `vocab` of at least 1 was expected"
        raise ValueError(msg)


def both_masks(first: Array | None, second: Array | None) -> Array | None:
    """Return the rows that both masks score; None scores all."""
    if first is None or second is None:
        return first if second is None else second
    return first & second


def block_items(others: int, block_bytes: int) -> int:
    """Return how many columns of `others` numbers fit into a block, at least one."""
    _options.whole("block_bytes", block_bytes)
    return max(1, block_bytes // (8 * max(others, 1)))  # 8: the widest dtype a block is turned into


def block_starts(number: int, step: int, /) -> list[int]:
    """Return where blocks of `step` of `number` items begin.

    Counted, because a compiled graph then depends on how many blocks there are, not on the sizes.
    """
    return [i * step for i in range(-(-number // step))]


def is_row_centre(centre: str) -> bool:
    """Return whether `centre` names each row's mean, rather than nothing."""
    if centre not in ("none", "row"):
        msg = f"`centre` must be 'none', 'row' or an array, got {centre!r}"
        raise ValueError(msg)
    return centre == "row"


def check_weight(weight: Array, bias: Array | None, /) -> None:
    """Raise where `weight` (vocab, width) and `bias` (vocab,) of a head do not fit."""
    array_namespace(weight) if bias is None else array_namespace(weight, bias)
    if weight.ndim != 2:
        msg = f"`weight` must have shape (vocab, width), got {tuple(weight.shape)}"
        raise ValueError(msg)
    if bias is not None:
        check_device("bias", bias, like=weight, like_name="weight")
        if tuple(bias.shape) != (weight.shape[0],):
            msg = f"`bias` must have shape ({weight.shape[0]},) to fit `weight`, got {tuple(bias.shape)}"
            raise ValueError(msg)


def check_centre(centre: Array, size: int, *, like: Array) -> Array:
    """Return `centre`, after making sure that it is one row (size,) and lies where `like` does."""
    array_namespace(centre, like)
    check_device("centre", centre, like=like, like_name="logits")
    if tuple(centre.shape) != (size,):
        msg = f"`centre` must have shape ({size},) here, got {tuple(centre.shape)}"
        raise ValueError(msg)
    return centre
