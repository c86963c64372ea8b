"""Scores learnt by regression on glances: the parts that policies with predicted scores share."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import _options
from .._array import Array, array_namespace, constant, take, to_numpy, wide_dtype
from .._host import Host
from ..candidates import Candidates, Features, Selection
from ..choice import top_k
from ..glance import COUNTS
from ..learner import Learner
from ..policy import Needs, Policy
from ..policy_spec import make_policy
from ._budgeted import TokenBudgeted
from ._explored import Mixed, Pairs, mixed
from ._rated import Rated
from ._scored import Scored
from ._trained import of_awaited
from ._wrapped import without_budget

_READ = ("exact", "shortlist")  # features that a choice reads on the host, where there are any
_PENDING = 1024  # chosen samples whose exact scores are awaited, at most


class LearntState(NamedTuple):
    """State of a policy with predicted scores."""

    rated: Any  # of the wrapped policy
    learner: Any  # LearnerState, or several
    glances: Array  # (k, width) of the chosen samples whose exact scores are awaited
    expected: Host  # (k, 3) of these: prediction, its mean over the pool, and 1 where drawn at random; on the host
    pairs: Pairs
    step: int
    falls_back: int  # 1 while predictions do not rank, and choices are random


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt(TokenBudgeted):
    """Policy that predicts the scores of another policy from glances.

    Parameters
    ----------
    policy
        The policy whose score is predicted, or its text.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the wrapped policy.
    warmup, explore, least_correlation, forget, penalty, seed
        As of `Predicted`.
    """

    policy: Any = field(default="entropy", kw_only=False)
    warmup: int = 10
    explore: float = 0.25
    least_correlation: float = 0.1
    forget: float = 0.95
    penalty: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        policy, budget = without_budget(_checked(self.policy))
        given = any(option is not None for option in (self.keep, self.count, self.tokens, self.processed))
        object.__setattr__(self, "policy", policy)
        for name, value in vars(budget).items() if not given else ():
            object.__setattr__(self, name, value)
        super().__post_init__()
        _options.whole("warmup", self.warmup, least=0)
        _options.number("explore", self.explore, "in [0, 1]", fits=lambda x: 0 <= x <= 1)
        _options.number("least_correlation", self.least_correlation, "in [-1, 1]", fits=lambda x: -1 <= x <= 1)
        _options.seed(self.seed)
        _ = self.learner  # checks its options

    @property
    def reads_sizes(self) -> bool:
        """Whether the numbers of all tokens of samples are read."""
        return self.policy.reads_sizes or self.processed is not None  # `super()` would break a compiled graph

    @property
    def learner(self) -> Learner:
        """What predicts the scores."""
        return Learner(forget=self.forget, penalty=self.penalty)

    @property
    def needs(self) -> Needs:
        """Glances, the training pass, and what the wrapped policy needs for the first choices."""
        return self.learning(training_pass=True, scored_choices=self.warmup)

    def learning(self, **own: Any) -> Needs:
        """Return the needs of the wrapped policy, glances, and those of `own`."""
        return dataclasses.replace(self.policy.needs, glance=True, budget=True, divisible=False, **own)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `glance` (batch, width), `length` (batch,), and `exact` (batch,) where there are logits."""
        features = {"glance": candidates.glance, "length": candidates.lengths(), **self.sizes(candidates)}
        return {**features, "exact": self.measure(candidates)} if candidates.has_logits else features

    def measure(self, candidates: Candidates, /) -> Array:
        """Return the wrapped policy's exact scores (batch,) of samples that were forwarded."""
        return self.policy.label(self.policy.examine(candidates))

    def init(self, features: Features, /) -> LearntState:
        """Return the state before the first label."""
        glances, length = features["glance"], features["length"]
        is_wide = wide_dtype(glances) == array_namespace(glances).float64
        nothing = np.zeros((0, 3), dtype=np.float64 if is_wide else np.float32)
        rated = self.policy.init(self.policy.from_label(length, glances[:, :-COUNTS], length))
        return LearntState(rated, self.init_learner(glances), glances[:0, :], nothing, Pairs.empty(), 0, 0)

    def choose(
        self, state: LearntState | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, LearntState]:
        """Choose by exact scores where there are any, else by predicted ones; a part is drawn at random."""
        self.warn_without_budget()
        state = self.init(features) if state is None else state
        glances, length = features["glance"], features["length"]
        predicted = self.predict(state.learner, glances)
        score = self.worth(state, features, predicted)
        sizes = {name: features[name] for name in ("size",) if name in features}
        known = {**self.policy.from_label(score, glances[:, :-COUNTS], length), **sizes}
        rating = self.policy.rate(state.rated, known)
        parts = {**rating.parts, "predicted": stretched(predicted)}
        metrics = {**rating.metrics, **self.further_metrics(features)}
        beside = {"own": predicted, **{name: features[name] for name in _READ if name in features}}
        beside |= {} if rating.storable is None else {"storable": rating.storable}
        scored = Scored.of(features, rating.scores, parts=parts, metrics=metrics, groups=groups, **beside)
        order = self.order(state, scored.numbers, self.random_fraction(state), groups=scored.groups)
        priority = order.priority.astype(scored.numbers.dtype)
        indices = top_k(priority, scored.counted(self.budget), budget=self.budget, groups=scored.groups)
        explored = order.explored(_of_each_group(indices, scored.groups))
        indices = self.scored_only(indices, scored.numbers)
        remembered = indices if rating.storable is None else indices[scored.host["storable"][indices]]
        rated = self.policy.remember(rating.state, known, constant(remembered, like=glances))
        state = state._replace(rated=rated, step=state.step + 1)
        if "exact" in features:
            state = self._learn_all(state, features, scored.host)
        else:
            state = _awaiting(state, glances, scored.host["own"], explored, indices)
        scored = scored.adding(
            parts={"explored": explored}, metrics={"predicted_correlation": state.pairs.correlation()}
        )
        return scored.selection(indices), state

    def pending(self, state: LearntState | None, /) -> int:
        """Return the number of chosen samples whose exact scores are awaited: the latest 1,024 at most."""
        return 0 if state is None else state.glances.shape[0]

    def learn(self, state: LearntState, scores: Array, /) -> LearntState:
        """Return the state after the exact scores (pending,) of the samples chosen since the last call.

        In the order in which they were chosen, NaN for unknown ones; of any array library and device, as they are
        brought to the state's. O(pending width^2).

        Raises
        ------
        ValueError
            Where there are more or fewer scores than samples that await them.
        """
        expected = state.expected
        labels = compressed(of_awaited(scores, self.pending(state)).astype(expected.dtype))
        drawn = expected[:, 2] > 0
        pairs = state.pairs.add(*(side[drawn] - expected[drawn, 1] for side in (expected[:, 0], labels)))
        learner = self.taught(state.learner, state.glances, constant(labels, like=state.glances))
        return self._watched(
            state._replace(learner=learner, glances=state.glances[:0, :], expected=state.expected[:0, :], pairs=pairs)
        )

    def random_fraction(self, state: LearntState, /) -> float:
        """Return the fraction of what is kept that is drawn at random."""
        return 1.0 if state.falls_back else float(self.explore)

    def init_learner(self, glances: Array, /) -> Any:
        """Return the learner's state before the first label."""
        return self.learner.init(glances)

    def taught(self, learner: Any, glances: Array, labels: Array, /) -> Any:
        """Return the learner's state after the labels (batch,) of one step."""
        return self.learner.learn(learner, glances, labels)

    def predict(self, learner: Any, glances: Array, /) -> Array:
        """Return the predicted labels (batch,)."""
        return self.learner.predict(learner, glances)

    def unbiased(self, features: Mapping[str, Host], /) -> Host:
        """Return which samples (batch,) with exact scores were not chosen by their predictions: all of them."""
        return np.ones(features["length"].shape[0], dtype=bool)

    def further_metrics(self, features: Features, /) -> dict[str, Array]:
        """Return numbers () about the pool that are the policy's own: none."""
        return {}

    def worth(self, state: LearntState, features: Features, predicted: Array, /) -> Array:
        """Return the scores (batch,) by which the wrapped policy chooses: exact ones where there are any."""
        return features.get("exact", stretched(predicted))

    def _learn_all(self, state: LearntState, features: Features, host: Mapping[str, Host]) -> LearntState:
        """Return the state after the exact scores of a whole pool, whose predictions are on the `host`, too."""
        xp = array_namespace(features["exact"])
        able = features["length"] > 0
        labels = compressed(features["exact"])
        labels = xp.where(able, labels, xp.full_like(labels, xp.nan))
        guess, truth = host["own"], np.where(host["length"] > 0, compressed(host["exact"]), np.nan)
        known = np.isfinite(guess)
        pairs = state.pairs
        if known.any() and np.ptp(guess[known]) > 0:  # before the first label all predictions are the same
            some, level = self.unbiased(host), guess[known].mean()
            pairs = pairs.add(guess[some] - level, truth[some] - level)
        learner = self.taught(state.learner, features["glance"], labels)
        return self._watched(state._replace(learner=learner, pairs=pairs))

    def order(self, state: LearntState, scores: Array, fraction: float, /, *, groups: Array | None = None) -> Mixed:
        """Mix the order by score, of each group, with a random one that takes a fraction of the places."""
        hosted = None if groups is None else to_numpy(groups)
        return mixed(to_numpy(scores), fraction, groups=hosted, seed=self.seed, step=state.step)

    def _watched(self, state: LearntState) -> LearntState:
        """Return the state, with random choices where predictions do not rank; warn where that begins."""
        correlation = state.pairs.correlation()
        if np.isnan(correlation):
            return state
        falls_back = correlation < self.least_correlation
        if falls_back and not state.falls_back:
            msg = (
                f"predicted scores of {type(self.policy).__name__} do not rank the samples (rank correlation "
                f"{correlation:.2f} with exact scores, below {self.least_correlation}): choices are random until it "
                "rises; use the policy itself, or Random"
            )
            warnings.warn(msg, UserWarning, stacklevel=3)
        return state._replace(falls_back=int(falls_back))


def _checked(policy: Policy | str) -> Any:
    """Return `policy`, made from text if it is text; raise where its score cannot be predicted."""
    policy = make_policy(policy) if isinstance(policy, str) else policy
    if not isinstance(policy, Rated):
        msg = (
            f"the score of {getattr(policy, '__name__', type(policy).__name__)} cannot be predicted, as it is not one "
            "number for each sample: give a policy such as uds.Entropy(), uds.MaxLoss() or uds.UDS()"
        )
        raise TypeError(msg)
    if not (policy.predictable and policy.needs.forward_pass) or policy.needs.whole_batch:
        msg = (
            f"{policy!r} cannot be predicted: its choice depends on other samples of the pool, or on lengths alone; "
            "give a policy such as uds.Entropy(), uds.MaxLoss() or uds.UDS()"
        )
        raise ValueError(msg)
    return policy


def _awaiting(state: LearntState, glances: Array, predicted: Host, explored: Host, indices: Host) -> LearntState:
    """Return the state that awaits the exact scores of the chosen samples."""
    known = predicted[np.isfinite(predicted)]
    mean = np.full_like(predicted, known.mean() if known.size else 0.0)
    expected = np.stack([predicted, mean, explored.astype(predicted.dtype)], axis=1)[indices]
    xp = array_namespace(glances)
    chosen = take(glances, constant(indices, like=glances))
    return state._replace(
        glances=_latest(xp.concat([state.glances, chosen], axis=0)),
        expected=_latest(np.concatenate([state.expected, expected.astype(state.expected.dtype)])),
    )


def _latest(rows: Array) -> Array:
    return rows[max(0, rows.shape[0] - _PENDING) :, :]


def _of_each_group(indices: Host, groups: Host | None) -> int:
    """Return how many are chosen of each group, at most."""
    if groups is None or not indices.shape[0]:
        return indices.shape[0]
    return int(np.unique(groups[indices], return_counts=True)[1].max())


def compressed(scores: Array) -> Array:
    """Return log(1 + |s|) with the sign of s: what the learner is taught."""
    xp = array_namespace(scores)
    size = xp.log1p(xp.abs(scores))
    return xp.where(scores < 0, -size, size)


def stretched(labels: Array) -> Array:
    """Return the scores of which `labels` are `compressed`."""
    xp = array_namespace(labels)
    size = xp.expm1(xp.abs(labels))
    return xp.where(labels < 0, -size, size)
