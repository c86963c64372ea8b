"""Baselines without a forward pass: all, random, longest and shortest samples."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import _options, _random
from .._array import Array, array_namespace, constant
from .._random import Stream
from ..candidates import Candidates, Features, HostSelection, Selection
from ..policy import Needs
from ..registry import register
from ._budgeted import TokenBudgeted
from ._ranked import Ranked, Stateless, StepNumber
from ._scored import Scored


class _Lengths(TokenBudgeted):
    """Policy that reads nothing but the lengths of samples, so that no forward pass is needed."""

    needs = Needs(logits=False)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `length`: rows that carry loss."""
        return {"length": candidates.lengths(), **self.sizes(candidates)}


@register("full")
@dataclass(frozen=True)
class Full:
    """Keep everything: plain training behind the same interface. No forward pass."""

    needs = Needs(logits=False)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `length`: rows that carry loss."""
        return {"length": candidates.lengths()}

    def init(self, features: Features, /) -> Stateless:
        """Return the empty state."""
        return Stateless()

    def choose(
        self, state: Stateless | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, Stateless]:
        """Choose every index, in order; all scores are 0."""
        length = features["length"]
        scores = array_namespace(length).zeros_like(length)
        order = np.arange(length.shape[0], dtype=np.int32)
        known = HostSelection(order, np.zeros(order.shape, dtype=np.float32), None, {}, {})
        return Selection(indices=constant(order, like=length), scores=scores).with_host(known), Stateless()


@register("random")
@dataclass(frozen=True, kw_only=True)
class Random(_Lengths):
    """Keep a random part. No forward pass: the baseline that costs nothing.

    Parameters
    ----------
    keep, count, tokens, processed
        The budget; see `Budget`.
    seed
        Seed of the draws; draw number n is the same on every library, machine and process.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.seed(self.seed)

    def init(self, features: Features, /) -> StepNumber:
        """Return step 0."""
        return StepNumber(0)

    def choose(
        self, state: StepNumber | None, features: Features, /, *, groups: Array | None = None
    ) -> tuple[Selection, StepNumber]:
        """Choose by scores uniform in [0, 1), which depend on seed and step alone."""
        self.warn_without_budget()
        step = 0 if state is None else state.step
        length = features["length"]
        generator: Any = _random.generator(self.seed, Stream.RANDOM, step)
        drawn = generator.random(length.shape[0], dtype=np.float32)
        scored = Scored.of(features, constant(drawn, like=length, dtype=length.dtype), groups=groups)
        return scored.selection(scored.best(self.budget)), StepNumber(step + 1)


@register("longest")
@dataclass(frozen=True, kw_only=True)
class Longest(_Lengths, Ranked):
    """Keep the samples with the most rows that carry loss: the control for a preference for length. No forward pass."""

    score_name: ClassVar[str] = "length"


@register("shortest")
@dataclass(frozen=True, kw_only=True)
class Shortest(_Lengths, Ranked):
    """Keep the samples with the fewest rows that carry loss, at least one: the other control. No forward pass."""

    score_name: ClassVar[str] = "shortness"

    def score(self, features: Features, /) -> Array:
        """Return the negative length (batch,)."""
        return -features["length"]
