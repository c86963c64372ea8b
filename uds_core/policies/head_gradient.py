"""Policies that score by gradients in the LM head's weight, computed from a forward pass."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from .. import _options, _random
from .._array import Array, array_namespace
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..choice import in_turn
from ..head_gradients import HeadGradients
from ..policy import Needs
from ..registry import register
from ._budgeted import Budgeted
from ._losses import required_labels
from ._ranked import Ranked, Stateless, StepNumber
from ._scored import Scored

_ROUNDING = 16  # times the precision of the sketches
_DEPENDENT = 1e-5  # of a gradient's norm: what is left of one that the chosen span, in float32


@register("maxgrad")
@dataclass(frozen=True, kw_only=True)
class MaxGrad(Ranked):
    r"""Keep the samples that would move the LM head the furthest.

    .. math:: s_i = \|g_i\|_F, \qquad g_i = \nabla_W \frac{1}{n_i} \sum_t -\log p(y_t)

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    gradient
        ``"head"``: in the head's weight, exactly. ``"logits"``: in the logits, which bounds it up to the size of the
        hidden states; it costs half, and needs no hidden states.

    Notes
    -----
    The norm, not its square; the head's scale counts, tied embeddings do not. Costs the logits of every candidate
    twice, block by block, but never all at once. Needs labels. Source: Katharopoulos & Fleuret, arXiv 1803.00942 (the
    last layer's gradient, and its bound); exact for language models here.
    """

    needs = Needs()
    score_name: ClassVar[str] = "gradient"
    gradient: Literal["head", "logits"] = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.one_of("gradient", self.gradient, ("head", "logits"))

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `gradient`: its norm; `length`: rows that carry loss."""
        gradients = _gradients(candidates, self)
        norms = gradients.norms() if self.gradient == "head" else gradients.logit_norms()
        return {"gradient": norms, "length": candidates.lengths(), **self.sizes(candidates)}


@register("greats")
@dataclass(frozen=True, kw_only=True)
class GREATS(Budgeted):
    r"""Keep the samples whose step together lowers the loss of validation samples the most.

    .. math:: u_i(S) = \eta \, \langle g_i, \bar v \rangle - \eta^2 \sum_{k \in S} \langle g_i, g_k \rangle

    The next pick has the highest u; S: those picked before it. v: the mean gradient of the validation samples. A Taylor
    series of their loss to second order, with the identity for its Hessian.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    eta
        Learning rate of the series. ``"auto"``: `weight` times the step that the series itself finds best for one
        sample, sum |<g_i, v>| / sum |g_i|^2 over the pool, so that neither term drowns the other.
    weight
        Under ``"auto"``, the pull against gradients like those that are picked already.

    Notes
    -----
    `examine` needs validation samples beside the candidates: ``Candidates(..., validation=Candidates(...))``; the
    gradients are then those in the LM head, from a forward pass alone. Or products of any other gradients, such as
    those in LoRA layers: ``products`` (batch, batch) and ``validation_products`` (batch, validation samples). A
    validation sample that is not finite does not count. Needs labels.

    A pool is one batch, or several where each is a group of its own: products with samples of another batch are not
    among the features. Source: Wang et al., GREATS, NeurIPS 2024.
    """

    needs = Needs()
    eta: float | Literal["auto"] = "auto"
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta != "auto":
            _options.number("eta", self.eta, "positive and finite, or 'auto'", fits=lambda eta: 0 < eta < float("inf"))
        _options.number("weight", self.weight, "finite, at least 0", fits=lambda weight: 0 <= weight < float("inf"))

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `alignment` (batch,), <g_i, v>; `products` (batch, batch); `length`: rows that carry loss."""
        products, across = (candidates.extra.get(name) for name in ("products", "validation_products"))
        if products is None or across is None:
            products, across = _head_products(candidates, self)
        if not across.shape[1]:
            msg = "GREATS needs at least one validation sample, got none: its choice lowers their loss"
            raise ValueError(msg)
        xp = array_namespace(products)
        sound = xp.any(~xp.isnan(across), axis=0)  # NaN with all of them: the validation sample is not finite
        number = xp.sum(xp.astype(sound, across.dtype))
        total = xp.sum(xp.where(sound[None, :], across, xp.zeros_like(across)), axis=1)
        alignment = total / xp.where(number > 0, number, xp.full_like(number, xp.nan))
        return {"alignment": alignment, "products": products, "length": candidates.lengths()}

    def init(self, features: Features, /) -> Stateless:
        """Return the empty state."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """Pick one by one; scores are those of the first pick, <g_i, v>. Raise where the pool is not one batch."""
        self.warn_without_budget()
        scored = Scored.of(features, features["alignment"], groups=groups, products=features["products"])
        products = _among_all(scored.host["products"].astype(np.float64), scored.groups)
        gains, norms = scored.numbers.astype(np.float64), np.sqrt(np.maximum(np.diagonal(products), 0))
        eta = self._eta(gains, norms)
        left = gains.copy()

        def after(picked: int | None) -> np.ndarray[Any, Any]:
            nonlocal left
            if picked is not None and np.isfinite(gains[picked]):
                left = left - eta * products[picked]
            return left

        indices = in_turn(after, scored.length, budget=self.budget, groups=scored.groups)
        indices = self.scored_only(indices, scored.numbers)
        scored = scored.adding(parts={"gradient": norms}, metrics={"eta": eta})
        return scored.selection(indices), Stateless()

    def _eta(self, gains: np.ndarray[Any, Any], norms: np.ndarray[Any, Any]) -> float:
        if self.eta != "auto":
            return float(self.eta)
        sound = np.isfinite(gains) & np.isfinite(norms)
        squares = float((norms[sound] ** 2).sum())
        return self.weight * float(np.abs(gains[sound]).sum()) / squares if squares else 0.0


@register("divbs")
@dataclass(frozen=True, kw_only=True)
class DivBS(Budgeted):
    r"""Keep the samples that together represent the sum of all candidates' gradients, without redundancy.

    .. math:: s_i(S) = \frac{|\langle h_i, r \rangle|}{\|h_i\|}, \qquad h_i = g_i - Q Q^T g_i

    The next pick has the highest s. Q: an orthonormal basis of the picked samples' gradients. r: the sum of all
    gradients, less its part in Q.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    dim
        Numbers in the sketch that represents a gradient.
    seed
        Seed of the sketch, and of the draws that fill up where the picked span what is left.

    Notes
    -----
    Gradients are those in the LM head, from a forward pass alone: `HeadGradients.sketch`. No more than `dim` samples
    are independent. Costs the logits of every candidate twice, block by block, and O(count batch dim) to choose. Needs
    labels. Source: Hong et al., DivBS, arXiv 2406.04872.
    """

    needs = Needs()
    dim: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.whole("dim", self.dim)
        _options.seed(self.seed)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `sketch` (batch, dim) of the gradient; `length`: rows that carry loss."""
        sketch = _gradients(candidates, self).sketch(dim=self.dim, seed=self.seed)
        return {"sketch": sketch, "length": candidates.lengths()}

    def init(self, features: Features, /) -> StepNumber:
        """Return step 0."""
        return StepNumber(0)

    def choose(
        self, state: StepNumber | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, StepNumber]:
        """Pick one by one; scores are those of the first pick."""
        self.warn_without_budget()
        step, sketch = 0 if state is None else state.step, features["sketch"]
        host = Scored.of(features, sketch[:, 0], groups=groups, sketch=sketch)
        left = _Residual(host.host["sketch"], _random.generator(self.seed, Stream.RANDOM, step))
        first = np.maximum(left.scores(), 0).astype(host.numbers.dtype)  # NaN stays
        indices = in_turn(left.without, host.length, budget=self.budget, groups=host.groups)
        scored = host.rescored(first, parts={})
        return scored.selection(self.scored_only(indices, scored.numbers)), StepNumber(step + 1)


class _Residual:
    """Residuals of the gradients and of their sum outside the span of the picked ones."""

    def __init__(self, gradients: np.ndarray[Any, Any], generator: np.random.Generator) -> None:
        self.left = gradients.astype(np.float64)
        norms = np.linalg.norm(self.left, axis=1)
        finite = np.isfinite(norms)
        # what is nothing beside the largest may be the rounding error of terms that cancel: it has no direction
        nothing = _ROUNDING * float(np.finfo(gradients.dtype).eps) * norms[finite].max(initial=0.0)
        self.least = np.maximum(_DEPENDENT * norms, nothing)
        self.goal = self.left[finite].sum(axis=0)
        self.noise = generator.random(len(gradients)) - 1  # below all scores

    def scores(self) -> np.ndarray[Any, Any]:
        """Return how much of the sum each one represents; a random number below 0 for those in the picked span."""
        norms = np.linalg.norm(self.left, axis=1)
        spanned = norms <= self.least
        return np.where(spanned, self.noise, np.abs(self.left @ self.goal) / np.where(spanned, 1, norms))

    def without(self, picked: int | None) -> np.ndarray[Any, Any]:
        """Return the scores after one more was picked."""
        norm = 0.0 if picked is None else np.linalg.norm(self.left[picked])
        if picked is not None and norm > self.least[picked]:
            one = self.left[picked] / norm
            self.left = self.left - np.outer(self.left @ one, one)
            self.goal = self.goal - (self.goal @ one) * one
        return self.scores()


def _among_all(products: np.ndarray[Any, Any], groups: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    """Return products (batch, batch) of a pool: one batch, or groups of one batch each, with 0 between groups."""
    pool, batch = products.shape
    names, sizes = np.unique(np.zeros(pool) if groups is None else groups, return_counts=True)
    if pool == batch:
        return products
    if any(size != batch for size in sizes):
        msg = (
            f"GREATS chooses from one batch, and was given a pool of {pool} samples of which each knows its products "
            f"with {batch}: choose from each batch (scope='micro'), each process from its own (ranks='rank'), and "
            "score it in one piece (`score_batch_size`)"
        )
        raise ValueError(msg)
    every = np.zeros((pool, pool))
    for name in names:
        members = np.flatnonzero(groups == name)
        every[np.ix_(members, members)] = products[members]
    return every


def _gradients(candidates: Candidates, policy: object) -> HeadGradients:
    labels = required_labels(candidates, policy)
    return HeadGradients(candidates.logits, labels, mask=candidates.mask, hidden=candidates.hidden)


def _head_products(candidates: Candidates, policy: GREATS) -> tuple[Array, Array]:
    validation: Any = candidates.extra.get("validation")
    if validation is None:
        msg = (
            "GREATS needs validation samples: `Candidates(..., validation=Candidates(...))`; a selector gets them by "
            "its `scorer`, a `ValidationScorer`"
        )
        raise ValueError(msg)
    gradients = _gradients(candidates, policy)
    products = gradients.products(gradients, _gradients(validation, policy))
    batch = products.shape[0]
    return products[:, :batch], products[:, batch:]
