"""Learning progress: how fast the loss falls around a sample, by predictions of a long and a short memory."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import _options
from .._array import Array, array_namespace, is_finite
from ..candidates import Features
from ..learner import Learner, LearnerState
from ..policy import Needs
from ..registry import register
from ._learnt import Learnt, LearntState, stretched


class Memories(NamedTuple):
    """What two learners were taught: the same labels, forgotten at two speeds."""

    short: LearnerState
    long: LearnerState


@register("progress")
@dataclass(frozen=True, kw_only=True, eq=False)
class Progress(Learnt):
    r"""Keep the samples around which the loss falls fastest: no forward pass over the candidates.

    .. math:: s_i = \hat \ell_i^{\,\text{long}} - \hat \ell_i^{\,\text{short}}

    Two ridge regressions on glances predict the loss, from the losses of the samples that are trained: one remembers
    the last few steps, the other many. What stays as uncertain as it was, such as noise, has no progress.

    Parameters
    ----------
    policy
        The policy whose score falls, or its text, as of `Predicted`.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the wrapped policy.
    warmup
        Number of first choices that are random.
    explore, least_correlation, penalty, seed
        As of `Predicted`.
    forget
        Of the short memory: what a step leaves of the weight of the steps before it.
    forget_long
        Of the long one.

    Notes
    -----
    A choice costs twice what it costs `Predicted`. `least_correlation` is compared with that of the long memory.
    Source: this library; the idea is that of learning progress, Oudeyer et al. (2007).
    """

    policy: Any = field(default="maxloss", kw_only=False)
    forget: float = 0.93
    forget_long: float = 0.98

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.number("forget_long", self.forget_long, "above `forget`", fits=lambda g: self.forget < g <= 1)

    @property
    def needs(self) -> Needs:
        """Glances and the training pass."""
        return self.learning(training_pass=True, scored_choices=0)

    @property
    def long_learner(self) -> Learner:
        """The learner with the long memory."""
        return dataclasses.replace(self.learner, forget=self.forget_long)

    def init_learner(self, glances: Array, /) -> Memories:
        """Return two empty memories."""
        return Memories(self.learner.init(glances), self.long_learner.init(glances))

    def taught(self, learner: Memories, glances: Array, labels: Array, /) -> Memories:
        """Return both memories after the labels (batch,) of one step."""
        return Memories(
            self.learner.learn(learner.short, glances, labels), self.long_learner.learn(learner.long, glances, labels)
        )

    def predict(self, learner: Memories, glances: Array, /) -> Array:
        """Return the labels (batch,) that the long memory predicts."""
        return self.long_learner.predict(learner.long, glances)

    def worth(self, state: LearntState, features: Features, predicted: Array, /) -> Array:
        """Return the progress (batch,); NaN where an exact score is known not to be finite."""
        short = self.learner.predict(state.learner.short, features["glance"])
        progress = stretched(predicted) - stretched(short)
        if "exact" not in features:
            return progress
        xp = array_namespace(progress)
        return xp.where(is_finite(features["exact"]), progress, xp.full_like(progress, xp.nan))

    def random_fraction(self, state: LearntState, /) -> float:
        """Return the fraction of what is kept that is drawn at random: all in the warm-up."""
        return 1.0 if state.step < self.warmup else super().random_fraction(state)
