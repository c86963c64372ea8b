"""Reuse of what is derived from a head that trains, until the head has moved."""

from __future__ import annotations

import math
from typing import Any

import torch

import uds_core as uds

__all__ = ["HEAD_TOLERANCE", "PreparedHead", "check_tolerance"]

HEAD_TOLERANCE = 0.0005  # measured: docs/pages/concepts/shortcut.md
_ROWS = 1152  # fixed rows of the vocabulary, drawn once for movements, and once for corrections
_REACH = 10  # corrections until a movement of so many tolerances: their error is then that of one without correction
_SMALL = 8 * _ROWS  # a vocabulary that is prepared as fast as corrected
_FEWEST_STEPS = 2  # that a preparation must serve to pay, at the speed at which the head moved last


class PreparedHead:
    """A head that trains, with what was derived of it when it was prepared: its factor and its sides of sketches.

    Parameters
    ----------
    tolerance
        How far the head may move before what is derived of it is renewed: the relative change of its weight and bias,
        |W - W0| / |W0| in the Frobenius norm, on 1,152 fixed rows. 0: nothing is reused.

    Attributes
    ----------
    preparations, corrections
        How often the head was prepared, and corrected.

    Notes
    -----
    Where it has moved by more than the tolerance, its factor is corrected by 1,152 rows (`uds_core.Head.updated`), and
    its sides of sketches are derived anew; where by more than 10 tolerances, or of a vocabulary too small for that to
    pay, it is prepared. What policies read row by row (losses, gradients, capped logits) is always of the weight as it
    is. Where the head moves so fast that a preparation would serve a single step, each call derives what it needs and
    no more, as with `tolerance` 0. Nothing but the weight decides, so processes with equal weights decide alike.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = check_tolerance(tolerance)
        self.preparations = self.corrections = 0
        self._rows: torch.Tensor | None = None
        self.clear()

    def clear(self) -> None:
        """Forget the head, so that the next call prepares it: at a checkpoint, so that a resumed run does the same."""
        self._before: tuple[torch.Tensor, torch.Tensor] | None = None  # rows when it was prepared, and when renewed
        self._forget(prepares=True)

    def release(self) -> None:
        """Keep derived values only, not the weight, which may be in memory for a moment."""
        if self._made is not None:
            key, *heads, rows = self._made
            prepared, current = (_without_weight(head) for head in heads)
            self._made = key, prepared, current, rows

    def movement(self, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Return the relative movement since the head was prepared, and since it was renewed (2,), on its device.

        None if it was not prepared.
        """
        if self.tolerance == 0.0:
            return None
        self._now = self._some(weight, bias)
        if self._before is None or self._before[0].shape != self._now.shape:
            return None
        return torch.stack([_relative(self._now, before.to(self._now.device)) for before in self._before])

    def head(
        self, weight: torch.Tensor, bias: torch.Tensor | None, scale: float, movement: tuple[float, float] | None
    ) -> uds.Head:
        """Return the head as it is, with what was derived of it before where that still serves.

        `movement`: what `movement` returned, for this weight.
        """
        if self.tolerance == 0.0:
            return uds.Head(weight, bias, scale, frozen=False)
        self._decide(movement, len(weight))
        if not self._prepares:
            return uds.Head(weight, bias, scale, frozen=False)
        key = (weight.shape, weight.dtype, weight.device, bias is None, scale)
        if self._made is None or self._made[0] != key:
            self.preparations += 1
            prepared = current = uds.Head(weight, bias, scale, factor_by="gram")
            rows = prepared.drawn(_ROWS)
        else:
            _, prepared, current, rows = self._made
            self.corrections += self._corrects
            current = prepared.updated(weight, bias, since=rows) if self._corrects else current.moved(weight, bias)
        self._made, self._corrects = (key, prepared, current, rows), False
        return current

    def _decide(self, movement: tuple[float, float] | None, vocab: int) -> None:
        """Decide whether derived values still serve. Further calls with the same weight change nothing."""
        if movement == self._last:
            return
        prepares = True
        if movement is not None:
            moved, lately = movement
            reach = self.tolerance * (1 if vocab < _SMALL else _REACH)
            if self._prepares and self._before is not None and moved <= reach:
                self._steps, self._last = self._steps + 1, movement
                if lately > self.tolerance:
                    self._corrects, self._last, self._before = True, (moved, 0.0), (self._before[0], self._now)
                return
            prepares = self._steps * reach >= _FEWEST_STEPS * moved
        self._forget(prepares=prepares)
        self._before = self._now, self._now

    def _forget(self, *, prepares: bool) -> None:
        self._made: tuple[tuple[Any, ...], uds.Head, uds.Head, uds.HeadRows] | None = None
        self._prepares, self._corrects, self._steps = prepares, False, 1
        self._last: tuple[float, float] = (0.0, 0.0)

    def _some(self, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return the fixed rows of the weight, with their bias, in float32."""
        if self._rows is None or self._rows.device != weight.device or self._vocab != len(weight):
            self._vocab = len(weight)
            drawn = torch.randperm(self._vocab, generator=torch.Generator().manual_seed(0))[:_ROWS]
            self._rows = drawn.sort().values.to(weight.device)
        some = weight.detach()[self._rows].float()
        return some if bias is None else torch.cat([some, bias.detach()[self._rows, None].float()], 1)


def _relative(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    return ((now - before).square().sum() / before.square().sum()).sqrt()


def _without_weight(head: uds.Head) -> uds.Head:
    return head.moved(*(None if x is None else x.new_zeros(()).expand(x.shape) for x in (head.weight, head.bias)))


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
