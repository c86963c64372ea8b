"""Reuse of what is derived from a head that trains, until the head has moved."""

from __future__ import annotations

import math
from typing import Any

import torch

import uds_core as uds

__all__ = ["HEAD_TOLERANCE", "PreparedHead", "check_tolerance"]

HEAD_TOLERANCE = 0.0003  # measured: docs/pages/concepts/shortcut.md
_ROWS = 256  # fixed rows of the vocabulary, drawn once
_FEWEST_STEPS = 2  # that a preparation must serve to pay, at the speed at which the head moved last


class PreparedHead:
    """A head that trains, with what was derived of it when it was prepared: its factor and its sides of sketches.

    Parameters
    ----------
    tolerance
        How far the head may move before it is prepared again: the relative change of its weight and bias,
        |W - W0| / |W0| in the Frobenius norm, on 256 fixed rows. 0: nothing is reused.

    Attributes
    ----------
    preparations
        How often the head was prepared.

    Notes
    -----
    What policies read row by row (losses, gradients, capped logits) is always of the weight as it is; only derived
    values are reused. Where the head moves so fast that a preparation would serve a single step, each call derives what
    it needs and no more, as with `tolerance` 0. Nothing but the weight decides, so processes with equal weights decide
    alike.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = check_tolerance(tolerance)
        self.preparations = 0
        self._rows: torch.Tensor | None = None
        self.clear()

    def clear(self) -> None:
        """Forget the head, so that the next call prepares it: at a checkpoint, so that a resumed run does the same."""
        self._before: torch.Tensor | None = None
        self._forget(prepares=True)

    def release(self) -> None:
        """Keep derived values only, not the weight, which may be in memory for a moment."""
        if self._head is not None:
            key, head = self._head
            weight, bias = (None if x is None else x.new_zeros(()).expand(x.shape) for x in (head.weight, head.bias))
            self._head = key, head.moved(weight, bias)

    def movement(self, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Return the relative movement () since the head was prepared, on its device; None if it was not."""
        if self.tolerance == 0.0:
            return None
        self._now = self._some(weight, bias)
        if self._before is None or self._before.shape != self._now.shape:
            return None
        before = self._before.to(self._now.device)
        return ((self._now - before).square().sum() / before.square().sum()).sqrt()

    def head(self, weight: torch.Tensor, bias: torch.Tensor | None, scale: float, movement: float | None) -> uds.Head:
        """Return the head as it is, with what was derived of it before where that still serves.

        `movement`: what `movement` returned, for this weight.
        """
        if self.tolerance == 0.0:
            return uds.Head(weight, bias, scale, frozen=False)
        self._begin(movement)
        if not self._prepares:
            return uds.Head(weight, bias, scale, frozen=False)
        key = (weight.shape, weight.dtype, weight.device, bias is None, scale)
        if self._head is None or self._head[0] != key:
            self.preparations += 1
            self._head = key, uds.Head(weight, bias, scale, factor_by="gram")
        else:
            self._head = key, self._head[1].moved(weight, bias)
        return self._head[1]

    def _begin(self, movement: float | None) -> None:
        """Decide whether derived values still serve. Further calls with the same weight change nothing."""
        if movement is not None:
            if movement == self._last:
                return
            if self._prepares and movement <= self.tolerance:
                self._steps, self._last = self._steps + 1, movement
                return
        self._forget(prepares=movement is None or self._steps * self.tolerance >= _FEWEST_STEPS * movement)
        self._before = self._now

    def _forget(self, *, prepares: bool) -> None:
        self._head: tuple[tuple[Any, ...], uds.Head] | None = None
        self._prepares, self._steps, self._last = prepares, 1, 0.0

    def _some(self, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the fixed rows of the weight, with their bias, in float32."""
        if self._rows is None or self._rows.device != weight.device or self._vocab != len(weight):
            self._vocab = len(weight)
            drawn = torch.randperm(self._vocab, generator=torch.Generator().manual_seed(0))[:_ROWS]
            self._rows = drawn.sort().values.to(weight.device)
        some = weight.detach()[self._rows].float()
        return some if bias is None else torch.cat([some, bias.detach()[self._rows, None].float()], 1)


def check_tolerance(tolerance: float) -> float:
    """Return `tolerance`, checked.

    Raises
    ------
    ValueError
        If it is not a finite number of at least 0.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < math.inf:
        msg = f"`head_tolerance` must be a number of at least 0, as in 0.001, got {tolerance!r}"
        raise ValueError(msg)
    return float(tolerance)
