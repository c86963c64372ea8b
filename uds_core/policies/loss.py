"""Policies that score by the loss, or by its excess over a reference model's loss."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from .. import _options
from .._array import Array
from ..candidates import Candidates, Features
from ..ledger import Ledger
from ..policy import Needs
from ..registry import register
from ._losses import check_source, recorded_loss, token_loss
from ._ranked import Ranked


@register("maxloss")
@dataclass(frozen=True, kw_only=True)
class MaxLoss(Ranked):
    r"""Keep the samples that the model predicts worst.

    .. math:: s_i = \frac{1}{n_i} \sum_t -\log p(y_t)

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    reduction
        ``"mean"`` over the sample's tokens, or their ``"sum"``, which favours long samples.
    vocabulary, seed
        None: exact losses. A number: estimates from about as many tokens of the vocabulary, drawn by the seed; see
        `cross_entropy`.

    Notes
    -----
    It cannot tell hard samples from wrong ones: expect harm on noisy data. Costs the logits of every candidate, block
    by block, but never all at once. Needs labels.
    """

    score_name: ClassVar[str] = "loss"
    reduction: Literal["mean", "sum"] = "mean"
    vocabulary: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.one_of("reduction", self.reduction, ("mean", "sum"))
        if self.vocabulary is not None:
            _options.whole("vocabulary", self.vocabulary)
        _options.seed(self.seed)

    @property
    def needs(self) -> Needs:
        """Logits."""
        return Needs(row_means=self.reduction == "mean")

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss`: cross-entropy; `length`: rows that carry loss."""
        loss = token_loss(candidates, self, reduction=self.reduction, vocabulary=self.vocabulary, seed=self.seed)
        return {"loss": loss, "length": candidates.lengths(), **self.sizes(candidates)}


@register("rholoss")
@dataclass(frozen=True, kw_only=True, eq=False)
class RHOLoss(Ranked):
    r"""Keep the samples whose loss is farthest above that of a reference: samples still to be learnt.

    .. math:: s_i = \ell_i(\theta) - \ell_i(\theta_{\text{reference}})

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    reference
        ``"given"``: the reference's losses come with the candidates, as ``reference_loss``. A `Ledger`: they are
        read from it by the samples' `ids`.

    Raises
    ------
    ValueError
        In `examine`, where labels, the reference's losses or `ids` are missing, or the ledger lacks a sample.

    Notes
    -----
    The reference is a model trained on other samples of the same kind. Its losses are computed once, before training,
    as this policy computes its own: token means over the same targets, from the same tokens. Costs what `MaxLoss`
    costs, and the reference's one pass over the data. Source: RHO-LOSS, arXiv 2206.07137.
    """

    score_name: ClassVar[str] = "excess"
    reference: Literal["given"] | Ledger = "given"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source("reference", self.reference, ("given",))

    @property
    def needs(self) -> Needs:
        """The reference's losses, or ids for the ledger."""
        return Needs(columns=("reference_loss",)) if self.reference == "given" else Needs(ids=True)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss` and `reference_loss`: token-mean cross-entropies; `length`: rows that carry loss."""
        return {
            "loss": token_loss(candidates, self),
            "reference_loss": recorded_loss(candidates, self.reference, "reference_loss"),
            "length": candidates.lengths(),
            **self.sizes(candidates),
        }

    def score(self, features: Features, /) -> Array:
        """Return the loss less the reference's (batch,)."""
        return features["loss"] - features["reference_loss"]
