"""Policies that remember the loss of each sample, by its id in the data set."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import _options
from .._array import Array
from ..candidates import Candidates, Features, Selection
from ..ledger import Ledger
from ..policy import Needs
from ..registry import register
from ._budgeted import Budgeted
from ._drawn import draw
from ._losses import check_source, recorded_loss, token_loss
from ._scored import Scored
from ._trained import SOURCES, Ids, Source, Trained, after_choice, nobody, training_needs


@register("lossdrop")
@dataclass(frozen=True, kw_only=True, eq=False)
class LossDrop(Trained, Budgeted):
    r"""Leave out the samples whose loss dropped most since the start: keep those learnt least.

    .. math:: s_i = \ell_i(\theta) - \ell_i(\theta_0)

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    start
        Where the losses at the start come from. ``"seen"``: a sample's start is when it is first a candidate.
        ``"given"``: they come with the candidates, as ``start_loss``, measured before training. A `Ledger`: so
        measured, and read from it by the samples' `ids`.
    losses
        ``"scored"``: the losses of all candidates, from a forward pass. ``"trained"``: those of the samples that are
        trained, from the training pass. What was never trained has not dropped, and has the score 0.

    Raises
    ------
    ValueError
        In `examine`, where labels, the losses at the start or `ids` are missing, or the ledger lacks a sample.

    Notes
    -----
    Under ``"seen"`` every score is 0 in the first epoch, so that the first samples are chosen, in their order: give the
    losses, or let a schedule start with the second epoch. The state is 12 bytes for each sample seen. Costs what
    `MaxLoss` costs. Source: the margin of TailSFT, which measures before training and leaves out
    round(batch x fraction) samples of all processes.
    """

    start: Literal["seen", "given"] | Ledger = "seen"
    losses: Source = "scored"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source("start", self.start, ("seen", "given"))
        _options.one_of("losses", self.losses, SOURCES)

    @property
    def needs(self) -> Needs:
        """The losses at the start, or ids to remember them by; the training pass."""
        columns = ("start_loss",) if self.start == "given" else ()
        if self.losses == "trained":
            return training_needs(columns=columns)
        return Needs(ids=not columns, columns=columns)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss`: token-mean cross-entropy; `length`: rows that carry loss; `id`, or `start_loss`."""
        known: dict[str, Array] = {}
        if self.start == "seen" or self.losses == "trained":
            known["id"] = candidates.identity()
        if self.start != "seen":
            known["start_loss"] = recorded_loss(candidates, self.start, "start_loss")
        if self.losses == "scored":
            known["loss"] = token_loss(candidates, self)
        return {"length": candidates.lengths(), **known}

    def init(self, features: Features, /) -> "Ledger | TrainedLosses":
        """Return an empty state."""
        empty = Ledger.empty()
        return empty if self.losses == "scored" else TrainedLosses(empty, empty, nobody())

    def enter_losses(self, state: "TrainedLosses", ids: Ids, losses: Ids, /) -> "TrainedLosses":
        """Return the state with the latest losses; of samples without a first one, these are the first."""
        new = np.isnan(state.first.look_up(ids))
        return state._replace(
            # reversed again: of a sample that was trained twice, the first loss is its start
            first=state.first.enter(ids[new][::-1], losses[new][::-1]),
            latest=state.latest.enter(ids, losses),
        )

    def choose(
        self, state: Any, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, "Ledger | TrainedLosses"]:
        """Choose by the change of the loss: negative where it dropped."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        if self.losses == "trained":
            return self._choose_by_trained(state, features, groups)
        loss = features["loss"]
        if self.start == "seen":
            host = Scored.of(features, loss, groups=groups, id=features["id"])
            ids, now = host.host["id"], np.where(host.length > 0, host.numbers, np.nan)
            new = np.isnan(state.look_up(ids))
            state = state.enter(ids[new], now[new])
            # an empty sample has no start
            start = np.where(host.length > 0, state.look_up(ids), host.numbers).astype(host.numbers.dtype)
            scored = host.rescored(host.numbers - start, parts={"loss": host.numbers, "start_loss": start})
        else:
            parts = {"loss": loss, "start_loss": features["start_loss"]}
            scored = Scored.of(features, loss - features["start_loss"], parts=parts, groups=groups)
        return scored.selection(self.scored_only(scored.best(self.budget), scored.numbers)), state

    def _choose_by_trained(
        self, state: "TrainedLosses", features: Features, groups: Array | None
    ) -> tuple[Selection, "TrainedLosses"]:
        beside = {} if self.start == "seen" else {"start_loss": features["start_loss"]}
        host = Scored.of(features, features["length"], groups=groups, id=features["id"], **beside)
        ids = host.host["id"]
        latest = state.latest.look_up(ids)
        start = state.first.look_up(ids) if self.start == "seen" else host.host["start_loss"]
        scored = host.rescored(np.where(np.isnan(latest), 0.0, latest - start), parts={})
        selection = scored.selection(self.scored_only(scored.best(self.budget), scored.numbers))
        return selection, state._replace(awaited=after_choice(state.awaited, ids, selection))


class TrainedLosses(NamedTuple):
    """State of LossDrop with the losses of trained samples."""

    first: Ledger
    latest: Ledger
    awaited: Ids  # (k,) of the chosen samples whose losses are awaited


class LossAverages(NamedTuple):
    """State of LossEMA."""

    averages: Ledger
    step: int
    awaited: Ids  # (k,) of the chosen samples whose losses are awaited


@register("lossema")
@dataclass(frozen=True, kw_only=True)
class LossEMA(Trained, Budgeted):
    r"""Draw samples in proportion to their loss, now and on average over the past.

    .. math:: w_i = b\, a_i + (1 - b)\, \ell_i, \qquad a_i \leftarrow d\, a_i + (1 - d)\, \ell_i

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    blend
        b in [0, 1]: 0 uses the current loss alone, 1 the average alone.
    decay
        d in [0, 1): how much of the average stays when a new loss is added. A sample's first average is its loss.
    losses
        ``"scored"``: the losses of all candidates, from a forward pass. ``"trained"``: those of the samples that are
        trained, from the training pass: w is the average alone, and of a sample that was never trained the mean of all
        averages.
    seed
        Seed of the draws, which depend on it, on the step and on the place in the pool, and on nothing else.

    Notes
    -----
    K samples are drawn without replacement, each next one with probability proportional to w. All candidates enter the
    averages, not only the chosen. The gradient is biased towards high losses on purpose, and no weights undo it. The
    state is 12 bytes for each sample seen. Costs what `MaxLoss` costs. Needs labels and `ids`. Idea: evolved sampling,
    arXiv 2509.23461, whose formula was not compared with this one.
    """

    blend: float = 0.2
    decay: float = 0.9
    losses: Source = "scored"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.number("blend", self.blend, "in [0, 1]", fits=lambda b: 0 <= b <= 1)
        _options.number("decay", self.decay, "in [0, 1)", fits=lambda d: 0 <= d < 1)
        _options.one_of("losses", self.losses, SOURCES)
        _options.seed(self.seed)

    @property
    def needs(self) -> Needs:
        """Ids; logits, or the training pass."""
        return Needs(ids=True) if self.losses == "scored" else training_needs()

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `loss`: token-mean cross-entropy; `length`: rows that carry loss; `id`."""
        loss = {"loss": token_loss(candidates, self)} if self.losses == "scored" else {}
        return {**loss, "length": candidates.lengths(), "id": candidates.identity()}

    def init(self, features: Features, /) -> LossAverages:
        """Return an empty state."""
        return LossAverages(Ledger.empty(), 0, nobody())

    def choose(
        self, state: LossAverages | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, LossAverages]:
        """Draw in proportion to the scores."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        if self.losses == "trained":
            return self._draw_by_trained(state, features, groups)
        host = Scored.of(features, features["loss"], groups=groups, id=features["id"])
        ids, now = host.host["id"], host.numbers
        seen = state.averages.look_up(ids)
        before = np.where(np.isnan(seen), now, seen).astype(now.dtype)
        blend = float(self.blend)
        scored = host.rescored(blend * before + (1 - blend) * now, parts={"loss": now, "average": before})
        seed = (self.seed, state.step)
        indices = draw(scored.numbers, scored.length, budget=self.budget, seed=seed, groups=scored.groups)
        indices = self.scored_only(indices, scored.numbers)
        after = np.where(host.length > 0, self.decay * before + (1 - self.decay) * now, np.nan)
        averages = state.averages.enter(ids, after)
        return scored.selection(indices), state._replace(averages=averages, step=state.step + 1)

    def enter_losses(self, state: LossAverages, ids: Ids, losses: Ids, /) -> LossAverages:
        """Return the state with the losses in the averages."""
        before = state.averages.look_up(ids)
        before = np.where(np.isnan(before), losses, before)
        return state._replace(averages=state.averages.enter(ids, self.decay * before + (1 - self.decay) * losses))

    def _draw_by_trained(
        self, state: LossAverages, features: Features, groups: Array | None
    ) -> tuple[Selection, LossAverages]:
        host = Scored.of(features, features["length"], groups=groups, id=features["id"])
        ids = host.host["id"]
        average = state.averages.look_up(ids)
        usual = state.averages.values.mean(dtype=np.float64) if len(state.averages.values) else 1.0
        scored = host.rescored(np.where(np.isnan(average), usual, average), parts={})
        seed = (self.seed, state.step)
        indices = draw(scored.numbers, scored.length, budget=self.budget, seed=seed, groups=scored.groups)
        selection = scored.selection(self.scored_only(indices, scored.numbers))
        awaited = after_choice(state.awaited, ids, selection)
        return selection, state._replace(step=state.step + 1, awaited=awaited)
