"""Policies that go by the loss: how high it is, or how much higher than a reference's."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from .. import _options
from .._array import Array, constant, to_numpy
from ..candidates import Candidates, Features
from ..ledger import Ledger
from ..losses import cross_entropy
from ..policy import Needs
from ..registry import register
from ._ranked import Ranked

__all__ = ["MaxLoss", "RHOLoss", "known_loss", "token_loss"]


@register("maxloss")
@dataclass(frozen=True, kw_only=True)
class MaxLoss(Ranked):
    r"""Keep the samples that the model predicts worst.

    .. math:: s_i = \frac{1}{n_i} \sum_t -\log p(y_t)

    Parameters
    ----------
    keep, count, tokens
        Share in (0, 1], or number, of the candidates that are kept, or rows with loss (`Budget`); default: all.
    reduction
        ``"mean"`` over the sample's tokens, or their ``"sum"``, which favours long samples.

    Notes
    -----
    Hard samples and wrong ones look alike to it: expect harm on noisy data. Costs the logits of every candidate, block
    by block, but never holds them. Needs labels.
    """

    needs = Needs()
    score_name: ClassVar[str] = "loss"
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.word("reduction", self.reduction, ("mean", "sum"))

    def examine(self, candidates: Candidates, /) -> Features:
        """`loss`: cross-entropy; `length`: rows that carry loss."""
        return {"loss": token_loss(candidates, self, reduction=self.reduction), "length": candidates.lengths()}


@register("rholoss")
@dataclass(frozen=True, kw_only=True, eq=False)
class RHOLoss(Ranked):
    r"""Keep the samples whose loss is farthest above that of a reference: learnable, worth learning, not yet learnt.

    .. math:: s_i = \ell_i(\theta) - \ell_i(\theta_{\text{reference}})

    Parameters
    ----------
    keep, count, tokens
        Share in (0, 1], or number, of the candidates that are kept, or rows with loss (`Budget`); default: all.
    reference
        ``"given"``: the reference's losses come with the candidates, as ``reference_loss``. A `Ledger`: they are found
        in it by the samples' `ids`.

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
        """The reference's losses, or identities to find them by."""
        return Needs(columns=("reference_loss",)) if self.reference == "given" else Needs(ids=True)

    def examine(self, candidates: Candidates, /) -> Features:
        """`loss` and `reference_loss`: token-mean cross-entropies; `length`: rows that carry loss."""
        return {
            "loss": token_loss(candidates, self),
            "reference_loss": known_loss(candidates, self.reference, "reference_loss"),
            "length": candidates.lengths(),
        }

    def score(self, features: Features, /) -> Array:
        """(batch,) loss less the reference's."""
        return features["loss"] - features["reference_loss"]


def token_loss(candidates: Candidates, policy: object, /, *, reduction: Literal["mean", "sum"] = "mean") -> Array:
    """(batch,) cross-entropy of the candidates' scored rows; an error that names `policy` where labels are missing."""
    if candidates.labels is None:
        msg = f"{type(policy).__name__} needs `labels`, and the candidates came without them"
        raise ValueError(msg)
    return cross_entropy(candidates.logits, candidates.labels, mask=candidates.mask, reduction=reduction)


def known_loss(candidates: Candidates, source: str | Ledger, name: str, /) -> Array:
    """(batch,) losses that were measured before: those that came as `name`, or those of a ledger."""
    if isinstance(source, str):
        return candidates.column(name)
    ids = to_numpy(candidates.identity())
    losses = source.look_up(ids)
    missing = ids[losses != losses]  # noqa: PLR0124 - NaN
    if missing.size:
        msg = f"the ledger has no {name} for {missing.size} of {ids.size} samples, such as {missing[0]}: measure them"
        raise ValueError(msg)
    return constant(losses, like=candidates.like)


def check_source(name: str, source: object, words: tuple[str, ...], /) -> None:
    """Raise where an option is neither one of `words` nor a ledger."""
    expected = f"{' or '.join(map(repr, words))} or a Ledger"
    _options.check(name, source, expected, kind=(str, Ledger), fits=lambda s: isinstance(s, Ledger) or s in words)
