"""Selection of the samples that resemble a target's, by importance weights on hashed n-grams."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import _options, _random
from .._array import Array, accumulation_dtype, array_namespace, at_least_one, constant, device, to_numpy
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..choice import Budget, top_k
from ..policy import Needs
from ..registry import register
from ..tradeoff import empty_window, shift_in, spread
from ._scored import Scored
from ._wrapped import Wrapping

_LEAST = 1e-30  # of a frequency whose logarithm is taken


class TargetedState(NamedTuple):
    """State of Targeted."""

    policy: Any  # of the policy inside
    pool: Array  # (buckets,) counts of all candidates so far
    ratios: Array  # (512,) latest log importance weights
    step: int


@register("targeted")
@dataclass(frozen=True, kw_only=True, eq=False)
class Targeted(Wrapping):
    r"""Keep the samples that resemble those of a target: no forward pass.

    .. math:: r_i = \frac{1}{\sqrt{n_i}} \sum_b c_{ib} \log \frac{p_b}{q_b}, \qquad s_i = r_i + \tau\, S\, g_i

    c_i: the sample's counts of tokens and pairs of tokens in buckets b, n_i in all. p, q: their frequencies in the
    target and in all candidates so far. g_i: Gumbel noise, so that samples are drawn with weights exp(r_i / (tau S)).
    S: the spread of the latest r.

    Parameters
    ----------
    policy
        A policy, or its text, that chooses among a part of the candidates, drawn as above. Default: none, the drawn
        ones are kept.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the policy inside.
    target
        Counts (buckets,) or (samples, buckets) of the target's samples, as of `ngram_counts`; a few hundred are enough.
    among
        With a policy inside: the fraction of the candidates that it chooses among, in (0, 1].
    noise
        tau, of at least 0; 0: the highest weights are kept.
    seed
        Seed of the noise.

    Notes
    -----
    The target's frequencies are drawn towards the pool's, by as many counts as there are buckets: a bucket that few
    samples show counts little. Draws are biased on purpose, without importance weights. O(batch buckets). Source: DSIR,
    Xie et al., arXiv 2302.03169, which adds up over a document where this divides by the root of its length.
    """

    target: Any = None
    among: float = 0.5
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None:
            object.__setattr__(self, "target", _total(self.target))
        _options.number("among", self.among, "a fraction in (0, 1]", fits=lambda x: 0 < x <= 1)
        _options.number("noise", self.noise, "a number of at least 0", fits=lambda x: 0 <= x < float("inf"))
        _options.seed(self.seed)

    @property
    def needs(self) -> Needs:
        """Counts of n-grams, and what the policy inside needs."""
        return self.wrapping(ngram_counts=True)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `ngram_counts` (batch, buckets), `length` (batch,), and the features of the policy inside."""
        inside = self.examine_inside(candidates)
        own = {"length": candidates.lengths(), "ngram_counts": candidates.ngram_counts, **self.sizes(candidates)}
        return {**inside, **own}

    def init(self, features: Features, /) -> TargetedState:
        """Return counts of zero, and step 0."""
        counts = features["ngram_counts"]
        xp = array_namespace(counts)
        pool = xp.zeros(counts.shape[1:], dtype=accumulation_dtype(counts), device=device(counts))
        return TargetedState(self.init_inside(features), pool, empty_window(like=counts), 0)

    def choose(
        self, state: TargetedState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, TargetedState]:
        """Draw by importance weights; the policy inside chooses among the drawn ones."""
        if self.needs.budget:
            self.warn_without_budget()
        state = self.init(features) if state is None else state
        counts, length = features["ngram_counts"], features["length"]
        xp = array_namespace(counts)
        pool = state.pool + xp.sum(counts, axis=0, dtype=state.pool.dtype)
        ratio = self._ratios(counts, pool)
        known = xp.where(length > 0, ratio, xp.full_like(ratio, xp.nan))
        window = shift_in(state.ratios, known)
        generator: Any = _random.generator(self.seed, Stream.GUMBEL, state.step)
        noise = constant(generator.gumbel(size=counts.shape[0]), like=counts, dtype=counts.dtype)
        drawn = ratio + float(self.noise) * spread(window) * noise
        state = state._replace(pool=pool, ratios=window, step=state.step + 1)
        if self.policy is None:
            scored = Scored.of(features, drawn, parts={"importance": ratio}, groups=groups)
            return scored.selection(scored.best(self.budget)), state
        chosen = self._among(drawn, length, groups)
        parts = {"importance": ratio, "drawn": xp.astype(chosen, ratio.dtype)}
        inside = self.choose_inside(state.policy, features, ~chosen, groups=groups, beside=parts)
        indices = inside.selection.on_host().indices
        selection = inside.selected(scores=inside.scores, indices=indices, parts=parts, metrics={})
        return selection, state._replace(policy=inside.state)

    def _among(self, drawn: Array, length: Array, groups: Array | None) -> Array:
        """Return which samples (batch,) the policy inside chooses among."""
        budget = Budget(keep=float(self.among))
        if groups is None:
            xp = array_namespace(drawn)
            place = xp.argsort(top_k(drawn, length, budget=Budget()), stable=True)
            return place < budget.size(drawn.shape[0])
        chosen = np.zeros(drawn.shape[0], dtype=bool)
        chosen[to_numpy(top_k(drawn, length, budget=budget, groups=groups))] = True
        return constant(chosen, like=drawn)

    def _ratios(self, counts: Array, pool: Array) -> Array:
        """Return the log importance weights (batch,), divided by the root of the number of n-grams."""
        xp = array_namespace(counts)
        if self.target is None or self.target.shape[0] != counts.shape[1]:
            got = "none" if self.target is None else f"{self.target.shape[0]} buckets"
            msg = (
                f"`target` must be counts of {counts.shape[1]} buckets, got {got}: give Targeted the counts of some "
                "samples of the target, target=uds_core.ngram_counts(token_ids, mask=mask)"
            )
            raise ValueError(msg)
        target = constant(self.target, like=counts, dtype=pool.dtype)
        total = xp.sum(pool)
        frequency = pool / xp.where(total > 0, total, xp.ones_like(total))
        prior = float(counts.shape[1])
        wanted = (target + prior * frequency) / (float(self.target.sum()) + prior)
        least = xp.full_like(frequency, _LEAST)
        weights = xp.log(xp.maximum(wanted, least)) - xp.log(xp.maximum(frequency, least))
        weights = xp.where(frequency > 0, weights, xp.zeros_like(weights))
        number = xp.sum(counts, axis=1)
        sums = xp.sum(counts * xp.astype(weights, counts.dtype)[None, :], axis=1)
        return sums / at_least_one(number) ** 0.5


def _total(target: Any) -> np.ndarray[Any, Any]:
    """Return the counts (buckets,) of all samples of the target, on the host."""
    given = np.asarray(to_numpy(target) if hasattr(target, "dtype") else target, dtype=np.float64)
    if given.ndim not in (1, 2) or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
        msg = (
            "`target` must be counts (buckets,) or (samples, buckets) of at least 0 and not all 0, as of "
            f"uds_core.ngram_counts, got an array of shape {given.shape}"
        )
        raise ValueError(msg)
    return given.reshape(-1, given.shape[-1]).sum(axis=0)
