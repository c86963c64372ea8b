"""Selective backpropagation: random draws in favour of high losses."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import _options, _random
from .._array import Array, array_namespace, constant, to_numpy
from .._host import Host
from .._random import Stream
from ..candidates import Candidates, Features, Selection
from ..choice import Budget
from ..policy import Needs
from ..registry import register
from ..tradeoff import empty_window, percentile, shift_in
from ._budgeted import Budgeted
from ._drawn import draw
from ._losses import token_loss
from ._scored import Scored


class LossWindow(NamedTuple):
    """State of SelectiveBackprop."""

    losses: Array  # (window,): of the latest candidates, NaN where there are none yet
    step: int


@register("selectivebackprop")
@dataclass(frozen=True, kw_only=True)
class SelectiveBackprop(Budgeted):
    r"""Draw samples, those with a high loss more often.

    .. math:: p_i \propto u_i^{\beta} \quad \text{or} \quad p_i = u_i^{\beta}, \qquad
        \beta = \frac{1}{\text{keep}} - 1

    u_i: the percentile of the sample's loss. With this beta the second p_i is `keep` on average.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`. Neither is needed with ``form="history"`` and a `beta`: all accepted samples are kept.
    form
        ``"rank"``: percentiles within the pool, and K samples drawn without replacement. ``"history"``: percentiles
        among the latest losses, the pool's included; each sample is accepted with its own probability.
    beta
        How strongly high losses are favoured; None: as above. 0 is uniform.
    window
        Number of latest losses that ``"history"`` looks back on.
    seed
        Seed of the draws, which depend on it, on the step and on the place in the pool, and on nothing else.

    Notes
    -----
    The gradient is biased towards high losses on purpose, and no weights undo it. Under ``"history"`` with `keep` or
    `count`, the K samples with the highest p_i / r_i are kept, r_i uniform in (0, 1]: exactly the accepted ones, those
    with p_i >= r_i, where these are K. Costs what `MaxLoss` costs. Needs labels. When to select (Composer: from half to
    nine tenths of training, with pauses) is the task of a schedule. Source: Jiang et al., arXiv 1910.00762
    (``"history"``); MosaicML Composer (``"rank"``).
    """

    form: Literal["rank", "history"] = "rank"
    beta: float | None = None
    window: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.one_of("form", self.form, ("rank", "history"))
        if self.beta is not None:
            _options.number("beta", self.beta, "a number of at least 0 or None", fits=lambda b: 0 <= b < float("inf"))
        _options.whole("window", self.window)
        _options.seed(self.seed)

    @property
    def needs(self) -> Needs:
        """Logits; and a budget, except where samples are accepted one by one."""
        return Needs(budget=self.form == "rank" or not self.beta)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss`: token-mean cross-entropy; `length`: rows that carry loss."""
        return {"loss": token_loss(candidates, self), "length": candidates.lengths()}

    def init(self, features: Features, /) -> LossWindow:
        """Return an empty window, and step 0."""
        return LossWindow(empty_window(like=features["loss"], window=self.window if self.form == "history" else 1), 0)

    def choose(
        self, state: LossWindow | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, LossWindow]:
        """Draw or accept samples; scores are p_i up to a factor (``"rank"``), or p_i / r_i (``"history"``)."""
        if self.form == "rank" or self.beta is None:
            self.warn_without_budget()
        state = self.init(features) if state is None else state
        xp = array_namespace(features["loss"])
        loss, length = features["loss"], features["length"]
        present = xp.where(length > 0, loss, xp.full_like(loss, xp.nan))
        losses = shift_in(state.losses, present)
        among = present if self.form == "rank" else losses
        rank = percentile(loss, among)
        probability = rank ** self._exponent(loss.shape[0], groups)
        probability = xp.where(xp.isnan(rank), rank, probability)  # NaN to the power of 0 is 1
        scores = probability if self.form == "rank" else probability / self._limit(probability, state.step)
        scored = Scored.of(features, scores, parts={"loss": loss, "probability": probability}, groups=groups)
        if self.form == "rank":
            seed = (self.seed, state.step)
            indices = draw(scored.numbers, scored.length, budget=self.budget, seed=seed, groups=scored.groups)
        else:
            indices = self._accepted(scored)
        indices = self.scored_only(indices, scored.numbers)
        return scored.selection(indices), LossWindow(losses, state.step + 1)

    def _exponent(self, batch: int, groups: Array | None) -> float:
        if self.beta is not None:
            return float(self.beta)
        if self.count is None:
            return 0.0 if self.keep is None else 1.0 / float(self.keep) - 1.0
        size = batch if groups is None else batch / max(np.unique(to_numpy(groups)).size, 1)
        return float(max(size / self.count - 1.0, 0.0))

    def _limit(self, probability: Array, step: int) -> Array:
        generator: Any = _random.generator(self.seed, Stream.RANDOM, step)
        limit = 1.0 - generator.random(probability.shape[0], dtype=np.float32)  # in (0, 1]
        return constant(limit, like=probability, dtype=probability.dtype)

    def _accepted(self, scored: Scored) -> Host:
        order = scored.best(self.budget)
        if self.budget != Budget():
            return order
        accepted = (scored.numbers >= 1) & (scored.length > 0)
        names = np.zeros(scored.numbers.shape[0], np.int64) if scored.groups is None else scored.groups
        best = {int(order[first]) for first in np.unique(names[order], return_index=True)[1]}  # one of each at least
        return np.asarray([i for i in order.tolist() if accepted[i] or i in best], dtype=np.int32)
