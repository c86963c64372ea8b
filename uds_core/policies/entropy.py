"""Policies that score by the entropy of predictions, alone or with the loss."""

from dataclasses import dataclass
from typing import ClassVar

from .. import _options
from .._array import Array, array_namespace
from ..candidates import Candidates, Features
from ..losses import entropy, loss_and_entropy
from ..policy import Needs
from ..registry import register
from ..tradeoff import percentiles
from ._losses import required_labels
from ._ranked import Ranked
from ._sketched import Rows


@register("entropy")
@dataclass(frozen=True, kw_only=True)
class Entropy(Ranked):
    r"""Keep the samples whose predictions are the least certain.

    .. math:: s_i = -\frac{1}{n_i} \sum_t \sum_v p_{tv} \log p_{tv}

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    rows
        ``"labels"``: rows whose target carries loss. ``"tokens"``: all that are not padding.

    Notes
    -----
    Reads no target: labels only mark the rows that count. Costs the logits of every candidate, block by block.
    """

    needs = Needs(row_means=True)
    score_name: ClassVar[str] = "entropy"
    rows: Rows = "labels"

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.one_of("rows", self.rows, ("labels", "tokens"))

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `entropy`, its mean over the rows, and `length`, their number."""
        return {
            "entropy": entropy(candidates.logits, mask=candidates.scored(self.rows)),
            "length": candidates.lengths(self.rows),
            **self.sizes(candidates),
        }


@register("quadrants")
@dataclass(frozen=True, kw_only=True)
class Quadrants(Ranked):
    r"""Keep samples that are certain and wrong or uncertain and right: perplexity high and entropy low, or the reverse.

    .. math:: s_i = \max\bigl(\min(u_i, 1 - v_i), \min(1 - u_i, v_i)\bigr)

    u_i, v_i: percentiles of the sample's perplexity and of its mean entropy in the pool, all groups of it.

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.

    Notes
    -----
    The K best are those of two opposite corners {u > 1 - a, v < a} and {u < a, v > 1 - a} with the smallest a for which
    these hold K samples. Corners with different cut-offs in u and v are not offered, and no tokens are
    dropped. Percentiles say little in small pools, where ties, which go to the lower index, are frequent. Costs what
    `MaxLoss` costs. Needs labels. Idea: Q-Tuning's sample selection, whose cut-offs may differ.
    """

    needs = Needs()
    score_name: ClassVar[str] = "corner"
    predictable: ClassVar[bool] = False

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss` (log perplexity) and `entropy`, token means, and `length`: rows that carry loss."""
        labels = required_labels(candidates, self)
        loss, unsure = loss_and_entropy(candidates.logits, labels, mask=candidates.mask)
        return {"loss": loss, "entropy": unsure, "length": candidates.lengths(), **self.sizes(candidates)}

    def score(self, features: Features, /) -> Array:
        """Return the depth (batch,) in the corner: 1 is deepest, 1/2 the middle, 0 one of the other two corners."""
        xp = array_namespace(features["loss"])
        unknown = features["length"] <= 0  # samples without rows, which count for no percentile
        nothing = xp.full_like(features["loss"], xp.nan)
        (u, not_u), (v, not_v) = (
            percentiles(x, xp.where(unknown, nothing, x)) for x in (features["loss"], features["entropy"])
        )
        return xp.maximum(xp.minimum(u, not_v), xp.minimum(not_u, v))
