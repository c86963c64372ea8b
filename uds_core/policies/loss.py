"""Policies that go by the loss."""

from dataclasses import dataclass
from typing import ClassVar

from ..losses import cross_entropy
from ..policy import Candidates, Features, register
from .ranked import Ranked

__all__ = ["MaxLoss"]


@register("maxloss")
@dataclass(frozen=True, kw_only=True)
class MaxLoss(Ranked):
    r"""Keep the samples that the model predicts worst.

    .. math:: s_i = \frac{1}{n_i} \sum_t -\log p(y_t)

    Parameters
    ----------
    keep, count
        Share in (0, 1], or number, of the candidates that are kept; default: all.

    Notes
    -----
    Hard samples and wrong ones look alike to it: expect harm on noisy data. Costs the logits of every candidate, block
    by block, but never holds them. Needs labels.
    """

    needs_logits: ClassVar[bool] = True
    score_name: ClassVar[str] = "loss"

    def examine(self, candidates: Candidates, /) -> Features:
        """`loss`: token-mean cross-entropy; `length`: rows that carry loss."""
        if candidates.labels is None:
            msg = "MaxLoss needs `labels`, and the candidates came without them"
            raise ValueError(msg)
        loss = cross_entropy(candidates.logits, candidates.labels, mask=candidates.mask)
        return {"loss": loss, "length": candidates.lengths()}
