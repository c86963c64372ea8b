"""Forms of selection that the study tries beside those of the library. What holds up moves there, as `Fresh` did."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

import uds_core as uds
from uds_core.glance import COUNTS

__all__ = [
    "Certain",
    "Dense",
    "Guarded",
    "LowLoss",
    "Matching",
    "PerCost",
    "Spared",
    "Turned",
    "Uncertain",
    "WorthPerCost",
]


@uds.register("matching")
@dataclass(frozen=True, kw_only=True)
class Matching:
    r"""Keep the samples whose mean stands nearest to the mean of all candidates.

    .. math:: \min_S \left\| \frac{\sum_{i \in S} z_i}{\sum_{i \in S} n_i} - \frac{\sum_i z_i}{\sum_i n_i} \right\|

    z_i: a sketch, summed over the rows of a sample; n_i: their number. Picked one after the other.

    Parameters
    ----------
    keep, count, tokens
        As in `UDS`.
    of
        ``"logits"``: the sketch of UDS. ``"gradient"``: that of DivBS, of the gradient in the LM head.
    """

    needs = uds.Needs()
    keep: float | None = None
    count: int | None = None
    tokens: int | None = None
    of: str = "logits"
    seed: int = 0

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """`sketch` (batch, dim), summed over rows; `length`."""
        if self.of == "gradient":
            features = uds.DivBS(keep=self.keep, seed=self.seed).examine(candidates)
            return {"sketch": features["sketch"] * features["length"][:, None], "length": features["length"]}
        features = uds.UDS(keep=self.keep, length="none", seed=self.seed).examine(candidates)
        return {"sketch": features["sketch"], "length": features["length"]}

    def init(self, _features: uds.Features, /) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def choose(self, _state: Any, features: uds.Features, /, *, groups: Any = None) -> tuple[uds.Selection, tuple[()]]:
        """One after the other, from the whole pool; what does not fit a budget of tokens is passed over."""
        assert groups is None
        sketch, length = (np.asarray(features[name], dtype=np.float64) for name in ("sketch", "length"))
        goal = sketch.sum(axis=0) / length.sum()
        most = uds.Budget(keep=self.keep, count=self.count, tokens=self.tokens).size(len(length))
        left = np.inf if self.tokens is None else self.tokens
        taken, tokens, picked = np.zeros(sketch.shape[1]), 0.0, []
        while len(picked) < most:
            able = [i for i in range(len(length)) if i not in picked and (not picked or length[i] <= left)]
            if not able:
                break
            means = (taken + sketch[able]) / (tokens + length[able])[:, None]
            best = able[int(np.argmin(np.linalg.norm(means - goal, axis=1)))]
            picked.append(best)
            taken, tokens, left = taken + sketch[best], tokens + length[best], left - length[best]
        like = features["length"]
        indices = like.new_tensor(picked).int()
        return uds.Selection(indices=indices, scores=like * 0.0), ()


@uds.register("turned")
@dataclass(frozen=True, kw_only=True, eq=False)
class Turned(uds.NuclearOnly):
    """Keep the samples with the lowest utility, or, with ``middle=True``, those nearest to the pool's median."""

    score_name: ClassVar[str] = "turned"
    middle: bool = False

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """`turned`: the utility."""
        features = uds.NuclearOnly.examine(self, candidates)
        return {"turned": features["turned"], "length": features["length"]}

    def score(self, features: uds.Features, /) -> Any:
        """(batch,) the utility turned round, or its distance to the median."""
        utility = features["turned"]
        return -(utility - utility.median()).abs() if self.middle else -utility


@uds.register("guarded")
@dataclass(frozen=True, kw_only=True, eq=False)
class Guarded(uds.UDS):
    """UDS, but the outliers of the pool come last: the `share` of the candidates whose `by` is highest."""

    by: Literal["utility", "loss"] = "utility"
    share: float = 0.25

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """Those of UDS, and `loss` where that is asked for."""
        features = uds.UDS.examine(self, candidates)
        if self.by == "utility":
            return features
        return {**features, "loss": uds.MaxLoss().examine(candidates)["loss"]}

    def rate(self, state: Any, features: uds.Features, /) -> Any:
        """As of UDS; outliers lose more than the range of the scores."""
        rating = uds.UDS.rate(self, state, features)
        scores = rating.scores
        outliers = features[self.by] > features[self.by].quantile(1 - self.share)
        return rating._replace(scores=(scores - scores.max() + scores.min() - 1.0).where(outliers, scores))


@uds.register("lowloss")
@dataclass(frozen=True, kw_only=True)
class LowLoss(uds.MaxLoss):
    """Keep the samples with the lowest loss: MaxLoss turned round."""

    def score(self, features: uds.Features, /) -> Any:
        """(batch,) the loss, negative."""
        return -uds.MaxLoss.score(self, features)


@uds.register("uncertain")
@dataclass(frozen=True, kw_only=True, eq=False)
class Uncertain(uds.UDS):
    """UDS with another utility: how unsure the model is of the sample's tokens, or how wrong; the mean over them."""

    by: Literal["entropy", "loss"] = "entropy"

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """Those of UDS, the utility replaced."""
        other = uds.Entropy() if self.by == "entropy" else uds.MaxLoss()
        return {**uds.UDS.examine(self, candidates), "utility": other.examine(candidates)[self.by]}


@uds.register("spared")
@dataclass(frozen=True, kw_only=True)
class Spared(uds.Random):
    """By chance, but what the model is surest of comes last: the `share` of the candidates with the lowest entropy."""

    needs = uds.Needs()
    share: float = 0.5

    def examine(self, candidates: uds.Candidates, /) -> uds.Features:
        """`entropy`, `length`."""
        return uds.Entropy().examine(candidates)

    def choose(self, state: Any, features: uds.Features, /, *, groups: Any = None) -> tuple[uds.Selection, Any]:
        """Scores are those of chance; of the sure ones, minus 1."""
        drawn, state = uds.Random.choose(self, state, features)
        sure = features["entropy"] < features["entropy"].quantile(self.share)
        scores = drawn.scores - sure.to(drawn.scores.dtype)
        indices = uds.top_k(scores, features["length"], budget=self.budget, groups=groups)
        return uds.Selection(indices=indices, scores=scores), state


@uds.register("percost")
@dataclass(frozen=True, kw_only=True, eq=False)
class PerCost(uds.Progress):
    """Learning progress above the pool's lowest, over the tokens processed, which the glance has as logarithms."""

    def worth(self, state: Any, features: uds.Features, predicted: Any, /) -> Any:
        """(batch,) progress per token."""
        gain = uds.Progress.worth(self, state, features, predicted)
        return (gain - gain.min()) / _processed(features)


def _processed(features: uds.Features) -> Any:
    """(batch,) all tokens, at least 1: those of the prompt and the targets, which the glance has as logarithms."""
    glance = features["glance"]
    return (glance[:, -COUNTS].expm1() + glance[:, 1 - COUNTS].expm1()).clamp(min=1.0)


@uds.register("dense")
@dataclass(frozen=True, kw_only=True)
class Dense(uds.Random):
    """At random, with weights: the fraction of targets in the tokens processed, to a `power`; Gumbel top-k."""

    power: float = 1.0

    @property
    def reads_sizes(self) -> bool:
        """Always."""
        return True

    def choose(self, state: Any, features: uds.Features, /, *, groups: Any = None) -> tuple[uds.Selection, Any]:
        """Scores are the logarithms of weights, and noise."""
        step = 0 if state is None else state.step
        length = features["length"]
        noise = np.random.default_rng([self.seed, step, 7]).gumbel(size=length.shape[0])
        share = (length / features["size"].clamp(min=1)).clamp(min=1e-9)
        scores = self.power * share.log() + length.new_tensor(noise)
        indices = uds.top_k(scores, self.counted(features), budget=self.budget, groups=groups)
        return uds.Selection(indices=indices, scores=scores), uds.Random.init(self, features)._replace(step=step + 1)


@uds.register("worthpercost")
@dataclass(frozen=True, kw_only=True, eq=False)
class WorthPerCost(uds.Predicted):
    """A predicted score, which is a mean over targets, times the targets, over the tokens processed to a `power`."""

    power: float = 1.0

    def worth(self, state: Any, features: uds.Features, predicted: Any, /) -> Any:
        """(batch,) score per token that is processed."""
        score = uds.Predicted.worth(self, state, features, predicted)
        return score * (features["length"] / _processed(features)) ** self.power


@uds.register("certain")
@dataclass(frozen=True, kw_only=True, eq=False)
class Certain(uds.Predicted):
    """At random, but the `share` of the candidates whose predicted score is lowest comes last: what is learnt.

    `power`: of the weight that a sample has by the fraction of targets in its tokens, as in `Dense`.
    """

    share: float = 0.25
    power: float = 0.0

    def worth(self, state: Any, features: uds.Features, predicted: Any, /) -> Any:
        """(batch,) place in a drawn order, from 0 to 1; of those with a low score, less 1."""
        score = uds.Predicted.worth(self, state, features, predicted)
        noise = np.random.default_rng([self.seed, state.step, 8]).gumbel(size=score.shape[0])
        weight = (features["length"] / _processed(features)).clamp(min=1e-9)
        drawn = (self.power * weight.log() + score.new_tensor(noise)).argsort().argsort() / score.shape[0]
        low = score < score.nanquantile(self.share)
        return (drawn - low.to(score.dtype)).to(score.dtype).where(score.isfinite(), score)
