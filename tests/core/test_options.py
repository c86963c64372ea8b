"""Options of the wrong type or value: the error names the option, what it may be, and what came."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import uds_core as uds
from uds_core import _options
from uds_core.memory import Memory
from uds_core.tradeoff import Spreads, combine

NAN, INF = float("nan"), float("inf")
ONES = np.ones(3)


def top(**given):
    return uds.top_k(ONES, ONES, **given)


def greedy(**given):
    return uds.greedy(ONES, np.ones((3, 2)), ONES, **{"budget": uds.Budget(count=1), "radius": 1.0, **given})


def drawn(**given):
    defaults = {"budget": uds.Budget(count=1), "temperature": 1.0, "seed": (0, 0)}
    return uds.gumbel_top_k(ONES, ONES, **{**defaults, **given})


def far(**given):
    return uds.diversity(np.ones((2, 3)), np.ones((2, 3)), **given)


def combined(**given):
    return combine(ONES, ONES, **{"alpha": 1.0, "spreads": Spreads.empty(like=ONES), **given})


def memory(capacity=3, dim=2):
    return Memory.empty(capacity, dim, like=ONES)


def reservoir(capacity=3, dim=2, **given):
    return uds.Reservoir.empty(capacity, dim, like=ONES, **given)


def window(window):
    return Spreads.empty(like=ONES, window=window)


PART = "a fraction in (0, 1]"
WHOLE = "a whole number of at least 1"
SEED = "a whole number of at least 0 and below 2**63"
ALPHA = "'auto', 'rank' or a number of at least 0"
LEAST_0 = "a number of at least 0"
TIED = "two arrays, for time and vocabulary, or None"

TYPES = [  # function, option, value of a wrong type, what is expected
    *[(make, "keep", "0.5", PART) for make in (uds.Budget, uds.UDS, uds.Random, uds.Longest, uds.MaxLoss)],
    *[(make, "keep", True, PART) for make in (uds.Budget, uds.UDS, uds.Random, uds.Reference)],
    *[(make, "count", "2", WHOLE) for make in (uds.Budget, uds.UDS, uds.Random, uds.Longest, uds.Reference)],
    *[(make, "count", True, WHOLE) for make in (uds.Budget, uds.UDS, uds.Longest)],
    *[(make, "tokens", value, WHOLE) for make in (uds.Budget, uds.UDS) for value in (True, "9", [9])],
    *[(uds.UDS, "alpha", value, ALPHA) for value in (None, True, [1.0], np.ones(2))],
    *[(uds.UDS, "weight", value, LEAST_0) for value in ("x", None, True, 1j)],
    *[(uds.UDS, "temperature", value, "positive or None") for value in ("hot", True, [1.0])],
    *[(uds.UDS, "frobenius", value, "in [0, 1]") for value in ("half", None, False)],
    *[(uds.UDS, name, value, WHOLE) for name in ("memory", "dim") for value in ("many", None, True)],
    *[(make, "seed", value, SEED) for make in (uds.UDS, uds.Random, uds.Reference, reservoir) for value in ("1", None)],
    *[(uds.UDS, "rows", value, "one of 'labels', 'tokens'") for value in (None, 1, np.ones(2), ["labels"])],
    (uds.UDS, "sketch", None, "one of 'paired', 'shifted', 'fourier'"),
    (uds.UDS, "method", 3, "one of "),
    *[(uds.UDS, "centre", value, "'none', 'row' or an array") for value in (None, 1.0, True, [1.0, 2.0])],
    *[(uds.Reference, "alpha", value, LEAST_0) for value in ("auto", None, True)],
    *[(uds.Reference, name, value, WHOLE) for name in ("memory", "time") for value in ("many", None)],
    *[(uds.Reference, "rank", value, "two whole numbers") for value in (8, None, "ab")],
    *[(uds.Reference, name, value, TIED) for name in ("signs", "indices") for value in (np.ones(2), 1)],
    *[(make, "budget", value, "a Budget") for make in (top, greedy, drawn) for value in (0.5, None, {"keep": 0.5})],
    *[(greedy, "radius", value, "at least 0") for value in ("1", None, np.ones(1))],
    *[(drawn, "temperature", value, "positive and finite") for value in ("hot", None, True)],
    *[(drawn, "seed", value, "(seed, step), two whole numbers") for value in (0, None, [0, 0])],
    *[(far, "neighbours", value, WHOLE) for value in ("8", None, True)],
    *[(far, "temperature", value, "positive and finite") for value in ("1", None)],
    (far, "distance", None, "one of 'mean', 'nearest', 'softmin'"),
    *[(combined, "alpha", value, ALPHA) for value in (None, True)],
    (combined, "weight", "1", LEAST_0),
    *[(make, name, "3", WHOLE) for make in (memory, reservoir) for name in ("capacity", "dim")],
    (window, "window", "9", WHOLE),
]

VALUES = [  # function, option, value of the right type that does not fit, what is expected
    *[(make, "keep", value, PART) for make in (uds.Budget, uds.UDS, uds.Reference) for value in (0.0, 1.5, NAN, INF)],
    *[(make, "count", value, WHOLE) for make in (uds.Budget, uds.UDS, uds.MaxLoss) for value in (0, 2.5, NAN, -1)],
    *[(uds.Budget, "tokens", value, WHOLE) for value in (0, 2.0, NAN)],
    *[(make, "alpha", value, ALPHA) for make in (uds.UDS, combined) for value in (-1.0, NAN, INF, "best", "")],
    *[(make, "weight", value, LEAST_0) for make in (uds.UDS, combined) for value in (-0.5, NAN, INF)],
    *[(uds.UDS, "temperature", value, "positive or None") for value in (0, 0.0, -1, NAN, INF)],
    *[(uds.UDS, "frobenius", value, "in [0, 1]") for value in (-0.1, 1.5, NAN)],
    *[(uds.UDS, name, value, WHOLE) for name in ("memory", "dim") for value in (0, 10.5, NAN)],
    *[(make, "seed", value, SEED) for make in (uds.UDS, uds.Random, reservoir) for value in (-1, 2**63, 1.0, NAN)],
    (uds.UDS, "rows", "all", "one of 'labels', 'tokens'"),
    (uds.UDS, "centre", "column", "'none', 'row' or an array"),
    *[(uds.Reference, "alpha", value, LEAST_0) for value in (-1.0, NAN, INF)],
    *[(uds.Reference, "rank", value, "two whole numbers") for value in ((8,), (1, 2, 3))],
    (uds.Reference, "signs", (np.ones(2),), TIED),
    *[(greedy, "radius", value, "at least 0") for value in (-1.0, NAN)],
    *[(drawn, "temperature", value, "positive and finite") for value in (0.0, NAN, INF)],
    *[(drawn, "seed", value, "(seed, step), two whole numbers") for value in ((), (0,), (0, 0, 0))],
    *[(far, "neighbours", value, WHOLE) for value in (0, 2.0)],
    *[(far, "temperature", value, "positive and finite") for value in (0, NAN, INF)],
    (far, "distance", "max", "one of 'mean', 'nearest', 'softmin'"),
    *[(make, name, 0, WHOLE) for make in (memory, reservoir) for name in ("capacity", "dim")],
    (window, "window", 0, WHOLE),
]


@pytest.mark.parametrize(("make", "name", "value", "expected"), TYPES)
def test_a_wrong_type_is_a_named_type_error(make, name, value, expected):
    with pytest.raises(TypeError, match=re.escape(f"`{name}` must be {expected}")) as caught:
        make(**{name: value})
    assert f"({type(value).__name__})" in str(caught.value)


@pytest.mark.parametrize(("make", "name", "value", "expected"), VALUES)
def test_a_wrong_value_is_a_named_value_error(make, name, value, expected):
    with pytest.raises(ValueError, match=re.escape(f"`{name}` must be {expected}")) as caught:
        make(**{name: value})
    assert f", got {value!r}"[:20] in str(caught.value)


def test_numbers_of_any_make_are_numbers():
    half: Any
    for half in (np.float32(0.5), Fraction(1, 2), 0.5):
        assert uds.Budget(keep=half).size(4) == 2
    whole: Any
    for whole in (np.int64(2), np.uint8(2), 2):
        assert uds.Budget(count=whole).size(5) == 2
        assert uds.UDS(alpha=whole, weight=whole, memory=whole, dim=whole, seed=whole, temperature=whole).alpha == 2
    assert uds.UDS(centre=np.ones(5)).centre.shape == (5,)


def test_what_came_is_shown_short_and_with_its_remedy():
    with pytest.raises(TypeError) as caught:
        _options.whole("count", "x" * 1000, remedy="; for a fraction use `keep`")
    assert len(str(caught.value)) < 150
    assert str(caught.value).endswith("(str); for a fraction use `keep`")
    with pytest.raises(ValueError, match=r"^`n` must be a whole number of at least 2, got 1; more$"):
        _options.whole("n", 1, least=2, remedy="; more")
