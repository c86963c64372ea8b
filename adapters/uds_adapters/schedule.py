"""Selection schedules."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import uds_core as uds

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    r"""Schedule of the steps that select, and of the fraction that each of them keeps.

    .. math:: n = \frac{\text{step} - \text{start}}{\text{every}}, \quad t = \min(n / \text{steps}, 1), \quad
        \text{keep}_n = \text{keep} + (\text{initial} - \text{keep}) \times
        \{0, \; 1 - t, \; \tfrac12 (1 + \cos \pi t)\}

    for ``"constant"``, ``"linear"`` and ``"cosine"``. Steps with a whole n of at least 0 select, all others train the
    whole batch.

    Parameters
    ----------
    start_step
        The first step that selects, counted from 0: the steps before it warm the model up.
    every
        Every `every`-th step selects, `start_step` the first of them.
    curve
        ``"constant"``: the policy's own fraction always. ``"linear"``, ``"cosine"``: from `initial` to the policy's own
        `keep`, up or down.
    initial
        Fraction in (0, 1] that the first selecting step keeps.
    steps
        Number of selecting steps after which the fraction is the policy's own `keep`, exactly. Needed by
        ``"linear"`` and ``"cosine"``.

    Raises
    ------
    ValueError
        When options are out of range, or exclude one another.

    Notes
    -----
    A function of the step alone, so a resumed run continues as an uninterrupted one. Over the selecting steps 0 to
    `steps`, both included, the mean fraction is (initial + keep) / 2 for ``"linear"`` and for ``"cosine"``.

    Examples
    --------
    >>> schedule = Schedule(start_step=100, curve="linear", initial=1.0, steps=400)
    >>> schedule.policy(uds.UDS(keep=0.25), 99) is None
    True
    >>> [schedule.policy(uds.UDS(keep=0.25), step).keep for step in (100, 300, 500)]
    [1.0, 0.625, 0.25]
    """

    start_step: int = 0
    every: int = 1
    curve: Literal["constant", "linear", "cosine"] = "constant"
    initial: float = 1.0
    steps: int | None = None

    def __post_init__(self) -> None:
        _check_whole("start_step", self.start_step, least=0)
        _check_whole("every", self.every, least=1)
        if self.curve not in ("constant", "linear", "cosine"):
            msg = (
                f"`curve` must be 'constant', 'linear' or 'cosine', got {self.curve!r}; "
                "the fraction is the policy's `keep`"
            )
            raise ValueError(msg)
        if not 0.0 < self.initial <= 1.0:
            msg = f"`initial` must be a fraction in (0, 1], got {self.initial}"
            raise ValueError(msg)
        if self.curve == "constant":
            if self.steps is not None or self.initial != 1.0:
                msg = "`steps` and `initial` change nothing with curve='constant': give curve='linear' or 'cosine'"
                raise ValueError(msg)
        elif self.steps is None:
            msg = f"curve={self.curve!r} needs `steps`, the number of selecting steps until the policy's own fraction"
            raise ValueError(msg)
        else:
            _check_whole("steps", self.steps, least=1)

    def policy(self, policy: uds.Policy, step: int, /) -> uds.Policy | None:
        """Return the policy of `step`, or None to train the whole batch.

        Parameters
        ----------
        policy
            A policy that passes `check`.
        step
            Number of the step, from 0.

        Returns
        -------
        Policy or None
            `policy` itself, or a copy with this step's `keep`. The state of the policy fits both.

        Raises
        ------
        TypeError, ValueError
            When the policy cannot be scheduled, or `step` is not a whole number of at least 0.
        """
        _check_whole("step", step, least=0)
        number, between = divmod(step - self.start_step, self.every)
        if number < 0 or between:
            return None
        if self.steps is None or number >= self.steps:
            return policy
        self.check(policy)
        # `check` made sure that it is a dataclass, which has no static type
        scheduled: Any = policy
        return dataclasses.replace(scheduled, keep=self._fraction(scheduled.keep, number / self.steps))

    def check(self, policy: uds.Policy, /) -> None:
        """Raise when `policy` has no fraction that this schedule can change.

        Raises
        ------
        TypeError
            When it is not a dataclass with an option `keep`.
        ValueError
            When its `keep` is None.
        """
        if self.curve == "constant":
            return
        name, remedy = type(policy).__name__, "or use Schedule(curve='constant')"
        if not dataclasses.is_dataclass(policy) or "keep" not in {field.name for field in dataclasses.fields(policy)}:
            msg = (
                f"curve={self.curve!r} changes the policy's `keep`, but {name} has no such option (a dataclass field): "
                f"choose another policy, {remedy}"
            )
            raise TypeError(msg)
        scheduled: Any = policy
        if scheduled.keep is None:
            msg = (
                f"curve={self.curve!r} ends at the policy's `keep`, but {name} was made without one: "
                f"set the fraction (`count` and `tokens` cannot be scheduled), {remedy}"
            )
            raise ValueError(msg)

    def _fraction(self, last: float, t: float) -> float:
        part = 1.0 - t if self.curve == "linear" else 0.5 * (1.0 + math.cos(math.pi * t))
        fraction = last + (self.initial - last) * part
        # rounding may exceed either end
        return min(max(fraction, min(self.initial, last)), max(self.initial, last))


def _check_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        msg = f"`{name}` must be a whole number of at least {least}, got {value!r}"
        raise ValueError(msg)
