"""Importance weights in the loss of a language model."""

from __future__ import annotations

from typing import Any

import torch

from .entries import IGNORE

__all__ = ["weighted_loss"]


def weighted_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
    /,
    *,
    num_items: torch.Tensor | int | None = None,
    shift: bool = True,
) -> torch.Tensor:
    r"""Return the weighted sum of the tokens' losses, divided by a number of tokens.

    .. math:: \frac{1}{N} \sum_i w_i \sum_{t \in i} -\log p(y_t)

    Parameters
    ----------
    logits
        (batch, time, vocab); of more positions than the labels have, the last are used.
    labels
        (batch, time) token ids, -100 for none.
    weights
        (batch, time) weight of each token's loss: the batch's `loss_weights`. None: all are 1.
    num_items
        N. Default: the number of labels in this batch. Give `BatchSelector.tokens`, the number of the whole step,
        when gradients are accumulated.
    shift
        Whether the logits at t predict the label at t + 1, as in causal models; False for encoder-decoder models.

    Raises
    ------
    ValueError
        When the weights do not have the labels' shape.
    """
    if weights is not None and weights.shape != labels.shape:
        msg = f"`weights` must have the labels' shape {tuple(labels.shape)}, got {tuple(weights.shape)}"
        raise ValueError(msg)
    logits = logits[:, -labels.shape[1] :]
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
        weights = None if weights is None else weights[:, 1:]
    labels = labels.to(logits.device)
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
    )
    if weights is not None:
        losses = losses * weights.flatten().to(losses)
    number: Any = (labels != IGNORE).sum() if num_items is None else num_items
    return losses.sum() / torch.as_tensor(number, device=losses.device).clamp(min=1)
