"""Small matrices with the singular values of the logits, computed block by block."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._array import Array, accumulation_dtype, array_namespace, device, is_finite, qr_triangle
from .head_logits import HeadLogits
from .logits import DenseLogits, Logits
from .rows import block_items, block_starts

_COLUMNS = 512  # a block with fewer would spend its time on starting matrix products
_COPIES = 6  # of a block in memory, while one is widened, masked, multiplied and subtracted from


def groups(logits: Logits, /, *, block_bytes: int) -> Iterator[Logits]:
    """Yield groups of samples that fit into `block_bytes` (at least one sample), by the head's factor where cheaper.

    Decided for the whole batch: a group on its own might find its samples too few to make the factor for.
    """
    batch, time, vocab = logits.shape
    derives = isinstance(logits, HeadLogits) and (logits.derives or time > vocab)
    wide = min(vocab, max(_COLUMNS, time))
    across = logits.head.columns if isinstance(logits, HeadLogits) and derives else wide
    step = block_items(_COPIES * time * across, block_bytes)
    for start in block_starts(max(batch, 1), step):
        group = logits.samples(start, min(start + step, batch))
        yield DenseLogits(group.compact()) if derives else group


def parts(source: Logits, /, *, block_bytes: int) -> Iterator[Array]:
    """Yield pieces along the longer side of the matrices: (batch, n, size), n = min(time, vocab)."""
    if isinstance(source, DenseLogits) and source.shape[1] > source.shape[2]:
        xp = array_namespace(source.like)
        yield from (xp.matrix_transpose(strip) for strip in source.strips(block_bytes=_shared(block_bytes)))
    else:
        yield from (block for _, block in columns(source, block_bytes=block_bytes))


def columns(source: Logits, /, *, block_bytes: int) -> Iterator[tuple[int, Array]]:
    """Yield blocks (batch, time, size) of the columns, each with its first column's index."""
    return source.blocks(block_bytes=_shared(block_bytes))


def gram(source: Logits, /, *, block_bytes: int) -> tuple[Array, Array]:
    """Return the smaller Gram matrix of each sample, (batch, n, n), divided by the square of its scale, (batch, 1, 1).

    In float64 where the device has it, else in float32.
    """
    xp = array_namespace(source.like)
    return _sum_of_squares(source, lambda part: part @ xp.matrix_transpose(part), block_bytes)


def squares(source: Logits, /, *, block_bytes: int) -> tuple[Array, Array]:
    """Sum of the squares of each sample, divided by the square of its scale; both (batch, 1, 1)."""
    xp = array_namespace(source.like)
    return _sum_of_squares(source, lambda part: xp.sum(part * part, axis=(1, 2), keepdims=True), block_bytes)


def triangle(pieces: Iterable[Array], /) -> Array:
    """Return R (batch, n, n) of a QR decomposition of the transposed `pieces` (batch, n, size), one below the other.

    It has their singular values, the small ones too, which a Gram matrix loses. NaN for a sample that is not finite.
    """
    found: Any = None
    finite: Any = True
    for piece in pieces:
        xp = array_namespace(piece)
        below = xp.matrix_transpose(piece)
        finite = xp.all(is_finite(piece), axis=(1, 2), keepdims=True) & finite
        found = qr_triangle(below if found is None else xp.concat([found, below], axis=1))
    xp = array_namespace(found)
    return xp.where(finite, found, xp.full_like(found, xp.nan))  # libraries make finite numbers of some NaN


def largest(x: Array, /) -> Array:
    """Return the largest absolute value (batch, 1, 1) of each sample of `x`; NaN where one is NaN."""
    xp = array_namespace(x)
    return xp.max(xp.abs(x), axis=(1, 2), keepdims=True)


def nonzero(scale: Array, /) -> Array:
    """Return `scale` with 1 in place of 0, to divide by."""
    xp = array_namespace(scale)
    return xp.where(scale == 0, xp.ones_like(scale), scale)


def _sum_of_squares(source: Logits, square: Callable[[Array], Array], block_bytes: int) -> tuple[Array, Array]:
    xp = array_namespace(source.like)
    wide = accumulation_dtype(source.like)
    start = xp.zeros if source.dtype == wide else xp.ones
    scale = start((source.shape[0], 1, 1), dtype=wide, device=device(source.like))
    total: Any = 0.0
    for part in parts(source, block_bytes=block_bytes):
        if source.dtype != wide:  # squares neither overflow nor vanish in a wider dtype
            total = total + square(xp.astype(part, wide, copy=False))
            continue
        grown = xp.maximum(scale, largest(part))
        total = total * (scale / nonzero(grown)) ** 2 + square(part / nonzero(grown))
        scale = grown
    return total, scale


def _shared(block_bytes: int) -> int:
    return block_bytes // _COPIES if block_bytes >= _COPIES else min(block_bytes, 1)
