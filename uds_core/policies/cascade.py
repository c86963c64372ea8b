"""Cascade: predict the scores of many candidates, examine few exactly, keep fewer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .. import _options
from .._array import Array, array_namespace, constant, is_finite
from .._host import Host, to_host
from ..candidates import Features
from ..choice import Budget, top_k
from ..policy import Needs
from ..registry import register
from ._learnt import Learnt, LearntState

_BY_SCORE, _AT_RANDOM = 1.0, 2.0


@register("cascade")
@dataclass(frozen=True, kw_only=True, eq=False)
class Cascade(Learnt):
    r"""Keep the samples that another policy would keep of a shortlist, which is made by predicted scores.

    .. math:: L = \operatorname{top}_{\,r B}\bigl(\hat s\bigr), \qquad S = \operatorname{top}_K\bigl(s_i : i \in L\bigr)

    Only the shortlist L runs through the model. The exact scores of its samples teach the predictions.

    Parameters
    ----------
    policy
        The policy that scores, or its text, as of `Predicted`.
    keep, count, tokens, processed
        The budget, of all candidates; see `Budget`. Default: that of the wrapped policy.
    shortlisted
        r in (0, 1]: fraction of the candidates of a batch that is examined exactly; at least `keep`.
    warmup
        Number of first choices for which all candidates are examined.
    explore
        In [0, 1]: fraction of the shortlist that is drawn at random.
    least_correlation, forget, penalty, seed
        As of `Predicted`: below `least_correlation` shortlists are random.

    Raises
    ------
    ValueError
        In `choose`, without the scores of a shortlist.

    Notes
    -----
    Features of a pool come from `examine` without logits, then `shortlist`, then `measure` of the shortlist with
    logits: the feature ``exact`` (batch,), NaN elsewhere. A step costs what it costs `Predicted`, and a forward pass
    over r B candidates. Source: this library.
    """

    shortlisted: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.number("shortlisted", self.shortlisted, "a fraction in (0, 1]", fits=lambda r: 0 < r <= 1)

    @property
    def needs(self) -> Needs:
        """Glances, and what the wrapped policy needs for the shortlist."""
        return self.learning(shortlist=True)

    def shortlist(self, state: LearntState | None, features: Features, /) -> Features:
        """Return the features, and `shortlist` (batch,): 1 to examine, 2 to examine as drawn at random, 0 not to."""
        length = features["length"]
        xp = array_namespace(length)
        if state is None or state.step < self.warmup:
            return {**features, "shortlist": xp.full_like(length, _BY_SCORE)}
        host = to_host({"predicted": self.predict(state.learner, features["glance"]), "length": length})
        rows = host["length"]
        order = self.order(state, host["predicted"], super().random_fraction(state))
        chosen = top_k(order.priority, rows, budget=Budget(keep=max(float(self.shortlisted), self.keep or 0.0)))
        place = np.zeros(length.shape[0])
        place[chosen] = np.where(order.explored(len(chosen))[chosen], _AT_RANDOM, _BY_SCORE)
        return {**features, "shortlist": constant(place, like=length, dtype=length.dtype)}

    def worth(self, state: LearntState, features: Features, predicted: Array, /) -> Array:
        """Return the exact scores (batch,), NaN beyond the shortlist."""
        if "exact" not in features:
            msg = "`features` must have `exact`, the scores of a shortlist: call `shortlist`, then `measure`"
            raise ValueError(msg)
        return features["exact"]

    def further_metrics(self, features: Features, /) -> dict[str, Array]:
        """Return `shortlisted`, the fraction of the candidates that was examined."""
        xp = array_namespace(features["exact"])
        known = xp.astype(is_finite(features["exact"]), features["length"].dtype)
        return {"shortlisted": xp.sum(known) / max(known.shape[0], 1)}

    def unbiased(self, features: Mapping[str, Host], /) -> Host:
        """Return which samples (batch,) were drawn at random; all where every candidate is on the shortlist."""
        place = features.get("shortlist", np.full_like(features["length"], _BY_SCORE))
        return place == (_AT_RANDOM if (place == 0).any() else place)

    def random_fraction(self, state: LearntState, /) -> float:
        """Return 0: random draws are part of the shortlist."""
        return 0.0
