"""Per-sample losses in blocks of the vocabulary, from dense logits or through a head without making them."""

from typing import Any, Literal

from ._array import Array, array_namespace, check_device, device
from .logits import Logits, as_logits
from .rows import BLOCK_BYTES, IGNORE

__all__ = ["cross_entropy"]


def cross_entropy(
    logits: Any,
    labels: Array,
    /,
    *,
    mask: Array | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    block_bytes: int = BLOCK_BYTES,
) -> Array:
    r"""Cross-entropy of each sample, in nats.

    .. math:: \ell_i = \frac{1}{n_i} \sum_t \left(\log \sum_v e^{L_{tv}} - L_{t y_t}\right)

    Parameters
    ----------
    logits
        Dense (batch, time, vocab), or ``head(hidden)``.
    labels
        (batch, time) integers: the target of each row, already shifted; -100 for none.
    mask
        (batch, time), true for rows that count, beside those with a target.
    reduction
        Over the n_i rows that count: their ``"mean"`` or ``"sum"``.
    block_bytes
        Extra memory that a block of logits may take.

    Returns
    -------
    Array
        (batch,). 0 for a sample without targets; NaN for one with a target outside the vocabulary, not finite for one
        with a non-finite scored row.

    Raises
    ------
    ValueError
        Where shapes or devices do not fit, or `reduction` is unknown.

    Notes
    -----
    O(batch time width vocab) through a head, one block of logits in memory; the log-sum-exp is running, so that no
    exponential overflows.
    """
    if reduction not in ("mean", "sum"):
        msg = f"`reduction` must be 'mean' or 'sum', got {reduction!r}"
        raise ValueError(msg)
    logits = as_logits(logits)
    xp = array_namespace(logits.like, labels)
    check_device("labels", labels, like=logits.like, like_name="logits")
    if tuple(labels.shape) != logits.shape[:2]:
        msg = f"`labels` must have shape (batch, time) = {logits.shape[:2]}, got {tuple(labels.shape)}"
        raise ValueError(msg)
    counted = labels != IGNORE
    logits = logits.scored(mask).scored(counted)
    counted = logits.mask
    targets = xp.where(counted, labels, xp.zeros_like(labels))
    rows = _row_losses(logits, targets, block_bytes)
    known = (targets >= 0) & (targets < logits.shape[2])
    rows = xp.where(known, rows, xp.full_like(rows, xp.nan))
    total = xp.sum(xp.where(counted, rows, xp.zeros_like(rows)), axis=1)
    if reduction == "sum":
        return total
    number = xp.sum(xp.astype(counted, total.dtype), axis=1)
    return total / xp.where(number > 0, number, xp.ones_like(number))


def _row_losses(logits: Logits, labels: Array, block_bytes: int) -> Array:
    """Log-sum-exp less the target's logit, (batch, time), block after block."""
    xp = array_namespace(logits.like)
    top = total = target = None
    for start, block in logits.blocks(block_bytes=block_bytes):
        here = _target_in(block, labels - start)
        block_top = xp.max(block, axis=2)
        if top is None or total is None:
            top, total, target = block_top, xp.sum(xp.exp(block - block_top[:, :, None]), axis=2), here
            continue
        new_top = xp.maximum(top, block_top)
        total = total * xp.exp(top - new_top) + xp.sum(xp.exp(block - new_top[:, :, None]), axis=2)
        top, target = new_top, target + here
    return top + xp.log(total) - target


def _target_in(block: Array, index: Array) -> Array:
    """The logit at `index` (batch, time) of a block of the vocabulary; 0 where the target lies in another block."""
    xp = array_namespace(block)
    batch, time, size = block.shape
    inside = (index >= 0) & (index < size)
    flat = xp.reshape(xp.where(inside, index, xp.zeros_like(index)), (batch * time,))
    flat = xp.arange(batch * time, dtype=flat.dtype, device=device(flat)) * size + flat
    picked = xp.reshape(xp.take(xp.reshape(block, (batch * time * size,)), flat), (batch, time))
    return xp.where(inside, picked, xp.zeros_like(picked))
