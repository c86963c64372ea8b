"""Cross-entropy through a linear head, with gradients, one block of logits at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch

from ...scoring.heads import After

__all__ = ["BLOCK", "row_losses", "summed_loss"]

BLOCK = 32 * 2**20
"""Bytes of float32 logits in a block."""


@torch.no_grad()
def row_losses(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, after: After
) -> torch.Tensor:
    """Return the loss (n,) of each of `targets` (n,), in float32.

    Parameters
    ----------
    rows
        (n, width) inputs of the head.
    weight, bias
        Of the head, (vocab, width) and (vocab,).
    targets
        (n,) token ids.
    after
        What the model does to the head's output.
    """
    losses = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
    weight, bias = _cast(weight), None if bias is None else _cast(bias)
    with _without_autocast(rows):
        for part in _blocks(rows, weight):
            raw = torch.nn.functional.linear(rows[part].to(weight.dtype), weight, bias)
            losses[part] = torch.nn.functional.cross_entropy(after(raw), targets[part], reduction="none")
    return losses


def summed_loss(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor, after: After
) -> torch.Tensor:
    """Return the sum of `row_losses`, differentiable once in `rows`, `weight` and `bias`.

    The gradients of a block are computed with its loss, so that no logits are computed twice, and none are stored.
    """
    return cast("torch.Tensor", _SummedLoss.apply(rows, weight, bias, targets, after))


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Any, weight: Any, bias: Any, targets: Any, after: After) -> torch.Tensor:  # noqa: PLR0917
        if not any(ctx.needs_input_grad):
            return row_losses(rows, weight, bias, targets, after).sum()
        wanted = zip((rows, weight, bias), ctx.needs_input_grad, strict=False)
        ctx.gradients = [torch.zeros_like(x) if need else None for x, need in wanted]
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        weight, bias = _cast(weight), None if bias is None else _cast(bias)
        with _without_autocast(rows):
            for part in _blocks(rows, weight):
                hidden = rows[part].to(weight.dtype)
                raw = torch.nn.functional.linear(hidden, weight, bias)
                loss, back = _with_gradient(raw, targets[part], after)
                del raw
                total += loss
                _add(ctx.gradients, part, back, hidden, weight)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override] # one output
        gradients, ctx.gradients = ctx.gradients, None
        return (*(None if one is None else one.mul_(grad) for one in gradients), None, None)


def _with_gradient(raw: torch.Tensor, targets: torch.Tensor, after: After) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss of a block of the head's output, and its gradient there."""
    with torch.enable_grad():
        raw = raw.detach().requires_grad_()
        logits = raw.float()
        logits = logits if after.scale == 1.0 else logits * after.scale
        logits = logits if after.constant is None else logits + after.constant.float()
        logits = logits if after.cap is None else (logits / after.cap).tanh() * after.cap
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        (back,) = torch.autograd.grad(loss, raw)
    return loss.detach(), back


def _add(gradients: list[Any], part: slice, back: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor) -> None:
    """Add a block's gradients to those of rows, weight and bias."""
    in_rows, in_weight, in_bias = gradients
    if in_rows is not None:
        in_rows[part] = back @ weight
    if in_weight is not None and in_weight.dtype == back.dtype:
        in_weight.addmm_(back.T, hidden)
    elif in_weight is not None:
        in_weight += back.T @ hidden
    if in_bias is not None:
        in_bias += back.sum(0)


def _blocks(rows: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    size = max(1, BLOCK // (4 * len(weight)))
    return (slice(start, start + size) for start in range(0, len(rows), size))


def _cast(x: torch.Tensor) -> torch.Tensor:
    """Return `x` in the precision in which autocast multiplies, if it is on."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def _without_autocast(like: torch.Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
