"""Policies with another policy inside: its budget, its needs, and what it learns from training."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._array import Array, array_namespace
from ..candidates import Candidates, Features
from ..choice import Budget
from ..policy import Needs, Policy
from ..policy_spec import make_policy
from ._budgeted import TokenBudgeted
from ._scored import Inside, chosen_inside

_BUDGETS = ("keep", "count", "tokens", "processed")


@dataclass(frozen=True, kw_only=True, eq=False)
class Wrapping(TokenBudgeted):
    """Policy that keeps some candidates away from another policy, which chooses among the rest.

    Parameters
    ----------
    policy
        The policy inside, or its text; None: the choice is the outer policy's own.
    keep, count, tokens, processed
        The budget; see `Budget`. Default: that of the policy inside.
    """

    policy: Any = field(default=None, kw_only=False)

    def __post_init__(self) -> None:
        if self.policy is not None:
            policy, budget = without_budget(_checked(self.policy))
            object.__setattr__(self, "policy", policy)
            if self.budget == Budget():
                for name, value in vars(budget).items():
                    object.__setattr__(self, name, value)
            _ = self.inner  # checks that it takes this budget
        super().__post_init__()

    @property
    def inner(self) -> Any:
        """The policy inside, with the budget of this one."""
        given = {name: value for name, value in vars(self.budget).items() if value is not None}
        if not given and not self.policy.needs.budget:  # it keeps as many as it likes
            return self.policy
        given = given or {"keep": 1.0}
        known = {option.name for option in dataclasses.fields(self.policy)}
        if unknown := [name for name in given if name not in known]:
            msg = f"{type(self.policy).__name__} has no budget `{unknown[0]}`: give `keep` or `count`"
            raise ValueError(msg)
        return dataclasses.replace(self.policy, **given)

    def wrapping(self, **own: Any) -> Needs:
        """Return the needs of the policy inside, and those of `own`."""
        inner = Needs(logits=False) if self.policy is None else self.policy.needs
        return dataclasses.replace(inner, **own)

    def examine_inside(self, candidates: Candidates, /) -> Features:
        """Return the features of the policy inside; none where there is no policy."""
        return {} if self.policy is None else self.policy.examine(candidates)

    def init_inside(self, features: Features, /) -> Any:
        """Return the state of the policy inside; None where there is no policy."""
        return None if self.policy is None else self.policy.init(features)

    def prepare(self, state: Any, features: Features, rows: slice, /) -> Features:
        """Return what the policy inside prepares of its choice, of the candidates `rows`; see `Divisible`."""
        if state is None or self.policy is None or not self.policy.needs.divisible:
            return {}
        return self.policy.prepare(state.policy, features, rows)

    def choose_inside(
        self,
        state: Any,
        features: Features,
        aside: Array,
        /,
        *,
        groups: Array | None,
        beside: Mapping[str, Array],
    ) -> Inside:
        """Let the policy inside choose; samples `aside` (batch,) are chosen where nothing else is left.

        It takes them for empty samples, which every policy puts last and none remembers. Their scores are lowered by
        the range of all scores, at least by 1. `beside` comes to the host with what the policy inside reads there.
        """
        xp = array_namespace(aside)
        length = features["length"]
        given = {**features, "length": xp.where(aside, xp.zeros_like(length), length)}
        return chosen_inside(self.inner, state, given, aside, groups=groups, beside=beside)

    def measure(self, candidates: Candidates, /) -> Array:
        """Return the exact scores (batch,) that the policy inside learns from (`Needs.training_pass`)."""
        return self.policy.measure(candidates)

    def shortlist(self, state: Any, features: Features, /) -> Features:
        """Return the features with the shortlist of the policy inside (`Needs.shortlist`)."""
        return self.policy.shortlist(None if state is None else state.policy, features)

    def pending(self, state: Any, /) -> int:
        """Return the number of chosen samples whose exact scores the policy inside awaits."""
        return 0 if state is None or self.policy is None else self.policy.pending(state.policy)

    def learn(self, state: Any, scores: Array, /) -> Any:
        """Return the state after the policy inside has learnt the exact scores (pending,)."""
        return state._replace(policy=self.policy.learn(state.policy, scores))


def without_budget(policy: Any, /) -> tuple[Any, Budget]:
    """Return `policy` without its budget, and the budget."""
    given = {name: getattr(policy, name) for name in _BUDGETS if getattr(policy, name, None) is not None}
    return (dataclasses.replace(policy, **dict.fromkeys(given)) if given else policy), Budget(**given)


def _checked(given: Any) -> Any:
    """Return the policy `given`, made from text if it is text; raise where it cannot stand inside of another."""
    policy: Any = make_policy(given) if isinstance(given, str) else given
    known = isinstance(policy, Policy) and dataclasses.is_dataclass(policy) and not isinstance(policy, type)
    if not known or not hasattr(policy, "count"):
        msg = (
            "`policy` must be a policy with the options `keep` and `count`, such as uds.Entropy(), or its text, got "
            f"{given!r}"
        )
        raise TypeError(msg)
    if policy.needs.weights:
        msg = (
            f"{type(policy).__name__} draws samples with importance weights, which hold for a whole pool: choose a "
            "policy without (of UDS, leave `temperature` out) where it chooses among a part of the pool"
        )
        raise ValueError(msg)
    return policy
