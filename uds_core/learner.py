"""Online ridge regression with forgetting, which predicts scores from glances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _options
from ._array import (
    Array,
    accumulation_dtype,
    array_namespace,
    at_least_one,
    check_device,
    device,
    is_finite,
    solve,
    wide_dtype,
)


class LearnerState(NamedTuple):
    """Sums over all labelled samples, older ones with less weight; a value."""

    origin: Array  # (width,): the first step's mean, taken out of all features so that sums keep their digits
    weight: Array  # ()
    first: Array  # (width,): sum of features
    second: Array  # (width, width): sum of their products
    labels: Array  # (): sum of labels, each less the level of its step
    products: Array  # (width,): sum of features times labels
    level: Array  # (): running mean of the labels of a step


@dataclass(frozen=True, kw_only=True)
class Learner:
    r"""Weighted ridge regression on standardised features, by sufficient statistics with forgetting.

    .. math:: \min_w \sum_i \omega_i \Bigl(y_i - m_i - \bar y - \sum_j w_j \frac{x_{ij} - \bar x_j}{\sigma_j}\Bigr)^2
        + \lambda \Omega \|w\|^2, \qquad \Omega = \sum_i \omega_i

    A sample that was labelled s steps ago has weight g^s. Means and spreads are those of the same weighted samples.
    m_i: the level of its step, a running mean of the labels of steps, since losses fall while a model trains.

    Parameters
    ----------
    forget
        g in (0, 1]: what a step leaves of the weight of all samples before it.
    penalty
        lambda > 0, in units of the variance of a standardised feature.
    inertia
        Between 0 and 1: what a step leaves of the level. 1: the level stays that of the first step.
    """

    forget: float = 0.98
    penalty: float = 0.5
    inertia: float = 0.8

    def __post_init__(self) -> None:
        _options.number("forget", self.forget, "in (0, 1]", fits=lambda g: 0 < g <= 1)
        _options.number("penalty", self.penalty, "a positive number", fits=lambda x: 0 < x < float("inf"))
        _options.number("inertia", self.inertia, "in [0, 1]", fits=lambda a: 0 <= a <= 1)

    def init(self, features: Array, /) -> LearnerState:
        """Return the state before the first label, for `features` (batch, width) of this library, device and width."""
        xp = array_namespace(features)
        wide_dtype(features, name="features")
        if features.ndim != 2:
            msg = f"`features` must have shape (batch, width), got {tuple(features.shape)}"
            raise ValueError(msg)
        dtype, width = accumulation_dtype(features), features.shape[1]

        def zeros(*shape: int) -> Array:
            return xp.zeros(shape, dtype=dtype, device=device(features))

        return LearnerState(zeros(width), zeros(), zeros(width), zeros(width, width), zeros(), zeros(width), zeros())

    def learn(self, state: LearnerState, features: Array, labels: Array, /) -> LearnerState:
        """Return the state after one step's labels.

        Parameters
        ----------
        state
            The state before; stays as it is.
        features
            (batch, width).
        labels
            (batch,). A sample whose label or features are not finite teaches nothing.

        Returns
        -------
        LearnerState

        Raises
        ------
        ValueError, TypeError
            Where shapes, dtypes or devices do not fit.

        Notes
        -----
        O(batch width^2). A step without labels forgets nothing.
        """
        xp = array_namespace(features, labels)
        _check(state, features, labels)
        dtype = state.second.dtype
        known = is_finite(labels) & xp.all(is_finite(features), axis=1)
        weight = xp.astype(known, dtype)
        x = xp.astype(xp.where(known[:, None], features, xp.zeros_like(features)), dtype, copy=False)
        y = xp.astype(xp.where(known, labels, xp.zeros_like(labels)), dtype, copy=False)
        number = xp.sum(weight)
        begun = state.weight > 0
        origin = xp.where(begun, state.origin, xp.sum(x, axis=0) / at_least_one(number))
        level = self._level(state, xp.sum(y) / at_least_one(number), number=number)
        y = (y - level) * weight
        x = (x - origin[None, :]) * weight[:, None]
        keep = xp.where(number > 0, xp.full_like(number, float(self.forget)), xp.ones_like(number))
        return LearnerState(
            origin=origin,
            weight=keep * state.weight + number,
            first=keep * state.first + xp.sum(x, axis=0),
            second=keep * state.second + x.T @ x,
            labels=keep * state.labels + xp.sum(y),
            products=keep * state.products + y @ x,
            level=level,
        )

    def _level(self, state: LearnerState, mean: Array, *, number: Array) -> Array:
        """Return the level () after a step whose `number` labels have this `mean`."""
        xp = array_namespace(mean)
        inertia = float(self.inertia)
        moved = xp.where(state.weight > 0, inertia * state.level + (1 - inertia) * mean, mean)
        return xp.where(number > 0, moved, state.level)

    def predict(self, state: LearnerState, features: Array, /) -> Array:
        """Return a prediction (batch,) of the label of each sample; in float32 for half floats, else in their dtype.

        0 before the first label; NaN for features that are not finite. O(width^3 + batch width).
        """
        xp = array_namespace(features)
        _check(state, features, None)
        dtype = state.second.dtype
        weight = xp.where(state.weight > 0, state.weight, xp.ones_like(state.weight))
        mean, label = state.first / weight, state.labels / weight
        second = state.second / weight - mean[:, None] * mean[None, :]
        cross = state.products / weight - mean * label
        variance = xp.linalg.diagonal(second)
        spread = xp.sqrt(xp.where(variance > 0, variance, xp.zeros_like(variance)))
        scale = xp.where(
            spread > _least_spread(state, dtype), 1 / xp.where(spread > 0, spread, xp.ones_like(spread)), 0.0
        )
        # sums need their digits, the system does not: the penalty bounds its condition
        narrow = wide_dtype(features)
        system = xp.astype(scale[:, None] * second * scale[None, :], narrow, copy=False)
        system = system + float(self.penalty) * xp.eye(second.shape[0], dtype=narrow, device=device(second))
        right = xp.astype(scale * cross, narrow, copy=False)[:, None]
        slope = scale * xp.astype(solve(system, right)[:, 0], dtype, copy=False)
        x = xp.astype(features, dtype, copy=False) - state.origin[None, :] - mean[None, :]
        return xp.astype(x @ slope + label + state.level, wide_dtype(features), copy=False)


def _least_spread(state: LearnerState, dtype: Any) -> Array:
    """Return the spreads (width,) below which a feature counts as constant: the rounding error of its square."""
    xp = array_namespace(state.second)
    size = xp.abs(state.origin) + xp.abs(state.first) / xp.where(
        state.weight > 0, state.weight, xp.ones_like(state.weight)
    )
    return size * 8 * float(xp.finfo(dtype).eps) ** 0.5 + float(xp.finfo(dtype).smallest_normal) ** 0.5


def _check(state: LearnerState, features: Array, labels: Array | None) -> None:
    width = state.first.shape[0]
    array_namespace(features, state.second)
    wide_dtype(features, name="features")
    if features.ndim != 2 or features.shape[1] != width:
        msg = f"`features` must have shape (batch, width) with a width of {width}, got {tuple(features.shape)}"
        raise ValueError(msg)
    check_device("features", features, like=state.second, like_name="state")
    if labels is not None and tuple(labels.shape) != (features.shape[0],):
        msg = f"`labels` must have one number for each of {features.shape[0]} samples, got shape {tuple(labels.shape)}"
        raise ValueError(msg)
