"""Utility + alpha x diversity, and the running spreads."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core._array import device
from uds_core.tradeoff import Spreads, combine, median, percentile, percentiles, rank, spread

numbers = st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), max_size=12)


@given(values=numbers, holes=st.integers(0, 3))
def test_spread_is_the_interquartile_range_of_what_is_finite(backend, values, holes):
    got = spread(backend.array(values + [np.nan] * holes, "float32"))
    assert float(backend.numpy(got)) == pytest.approx(reference.interquartile_range(values), rel=1e-4, abs=1e-3)


def test_spread_of_nothing_is_zero(backend):
    assert float(backend.numpy(spread(backend.array([np.nan, np.nan], "float32")))) == 0


def test_windows_hold_the_latest_oldest_first(backend):
    spreads = Spreads.empty(like=backend.array([0.0], "float32"), window=3)
    for i in range(1, 4):
        values = backend.array([i, i + 0.5], "float32")
        spreads = spreads.updated(values, values if i > 1 else None)
    np.testing.assert_array_equal(backend.numpy(spreads.utility), [2.5, 3, 3.5])
    np.testing.assert_array_equal(backend.numpy(spreads.diversity), [2.5, 3, 3.5])
    wide = spreads.updated(backend.array(np.arange(9), "float32"), None)
    np.testing.assert_array_equal(backend.numpy(wide.utility), [0, 3, 6])  # of all, not of the last alone
    np.testing.assert_array_equal(backend.numpy(wide.diversity), [2.5, 3, 3.5])


@given(values=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), max_size=9), alpha=st.floats(0, 9))
def test_a_number_is_the_factor(backend, values, alpha):
    u, d = np.array(values).reshape(-1, 2).T
    x, y = backend.array(u, "float32"), backend.array(d, "float32")
    got = combine(x, y, alpha=alpha, spreads=Spreads.empty(like=x))
    np.testing.assert_allclose(backend.numpy(got.scores), u + alpha * d, rtol=1e-4, atol=1e-4)
    assert float(backend.numpy(got.alpha)) == pytest.approx(alpha)


@given(seed=st.integers(0, 2**32 - 1), weight=st.floats(0, 3), factor=st.floats(0.1, 50))
def test_auto_ranks_alike_when_all_logits_are_multiplied(backend, seed, weight, factor):
    u, d = np.random.default_rng(seed).uniform(1, 9, size=(2, 8))
    scores = []
    for times in (1.0, factor):
        x, y = backend.array(times * u, "float32"), backend.array(times * d, "float32")
        spreads = Spreads.empty(like=x).updated(x, y)
        scores.append(backend.numpy(combine(x, y, alpha="auto", weight=weight, spreads=spreads).scores))
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    iqr = reference.interquartile_range
    np.testing.assert_allclose(scores[0], u / iqr(u) + weight * d / iqr(d), rtol=1e-4)


def test_a_term_without_spread_is_left_out(backend):
    u = backend.array([1.0, 2.0, 4.0, 8.0], "float32")
    same = backend.array([3.0, 3.0, 3.0, 3.0], "float32")
    spreads = Spreads.empty(like=u).updated(u, same)
    got = combine(u, same, alpha="auto", spreads=spreads)
    np.testing.assert_array_equal(np.argsort(backend.numpy(got.scores)), [0, 1, 2, 3])
    assert float(backend.numpy(got.alpha)) == 0
    got = combine(same, u, alpha="auto", spreads=Spreads.empty(like=u).updated(same, None))
    np.testing.assert_array_equal(backend.numpy(got.scores), np.zeros(4))
    assert np.isfinite(backend.numpy(got.alpha))


@given(values=numbers, holes=st.integers(0, 3))
def test_median_is_that_of_what_is_finite(backend, values, holes):
    got = median(backend.array(values + [np.nan] * holes, "float32"))
    assert float(backend.numpy(got)) == pytest.approx(np.median(values) if values else 0.0, rel=1e-4, abs=1e-3)


@given(values=st.lists(st.sampled_from([0.0, 1.0, 2.5, -3.0, np.nan]), max_size=8))
def test_ranks_are_shared_by_equals_and_leave_out_the_unknown(backend, values):
    got = backend.numpy(rank(backend.array(values, "float32")))
    known = [v for v in values if not np.isnan(v)]
    for value, place in zip(values, got, strict=True):
        if np.isnan(value):
            assert np.isnan(place)
        elif len(set(known)) == 1:
            assert place == 0
        else:
            below, equal = sum(v < value for v in known), sum(v == value for v in known)
            assert place == pytest.approx((below + equal / 2) / len(values))


@pytest.mark.parametrize("alpha", [0.5, "rank", "auto"])
def test_scores_and_alpha_are_of_the_kind_of_the_utility(backend, alpha):
    u = backend.array([1.0, 2.0, 4.0], "float32")
    got = combine(u, u, alpha=alpha, spreads=Spreads.empty(like=u).updated(u, u))
    for array in got:
        assert (array.dtype, device(array)) == (u.dtype, device(u))
    same = combine(u, u, alpha=alpha, weight=1.0, spreads=Spreads.empty(like=u).updated(u, u))
    np.testing.assert_array_equal(backend.numpy(got.scores), backend.numpy(same.scores))
    assert Spreads.empty(like=u).utility.dtype == u.dtype


def test_rank_fusion_adds_ranks(backend):
    u, d = backend.array([1.0, 100.0, 2.0], "float32"), backend.array([5.0, 4.0, 6.0], "float32")
    got = combine(u, d, alpha="rank", weight=2.0, spreads=Spreads.empty(like=u))
    np.testing.assert_allclose(
        backend.numpy(got.scores), [1 / 6 + 2 * 3 / 6, 5 / 6 + 2 / 6, 3 / 6 + 2 * 5 / 6], rtol=1e-5
    )
    assert float(backend.numpy(got.alpha)) == 2
    empty = combine(u, 0 * d, alpha="rank", spreads=Spreads.empty(like=u))
    np.testing.assert_allclose(backend.numpy(empty.scores), [1 / 6, 5 / 6, 3 / 6], rtol=1e-5)


def test_what_is_unknown_stays_unknown_where_its_term_is_left_out(backend):
    u = backend.array([np.nan, 2.0, 2.0], "float32")
    got = combine(u, 0 * u, alpha="auto", spreads=Spreads.empty(like=u).updated(u, None))
    np.testing.assert_array_equal(np.isnan(backend.numpy(got.scores)), [True, False, False])


def test_the_public_names_are_these():
    assert (uds.combine, uds.spread, uds.Spreads) == (combine, spread, Spreads)


@given(values=numbers, among=numbers, holes=st.integers(0, 3))
def test_percentile_counts_what_is_below_and_half_of_what_is_equal(backend, values, among, holes):
    values, among = [*values, *among[:1], np.nan], [*among, 0.5]
    got = percentile(backend.array(values, "float32"), backend.array(among + [np.nan] * holes, "float32"))
    np.testing.assert_allclose(backend.numpy(got), [*reference.percentile(values[:-1], among), np.nan], rtol=1e-6)


def test_percentile_of_what_is_not_finite_is_not_known_and_among_nothing_zero(backend):
    got = percentile(backend.array([np.nan, np.inf, 1.0], "float32"), backend.array([np.inf, 0.0, 2.0], "float32"))
    np.testing.assert_array_equal(backend.numpy(got), np.array([np.nan, np.nan, 0.5], np.float32))
    nothing = percentile(backend.array([1.0], "float32"), backend.array([np.nan], "float32"))
    assert backend.numpy(nothing).tolist() == [0]


@given(values=numbers, among=numbers)
def test_percentiles_from_above_are_those_of_the_opposite(backend, values, among):
    x, others = (backend.array(given, "float32") for given in ([*values, np.nan], [*among, 0.5, np.inf]))
    from_above = backend.numpy(percentiles(x, others)[1])
    np.testing.assert_array_equal(from_above, backend.numpy(percentile(-x, -others)))


def test_spreads_of_several_windows_are_those_of_each(backend):
    windows = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32)
    windows[0, :] = np.nan
    windows[1, 4:] = np.nan
    together = backend.numpy(spread(backend.array(windows, "float32")))
    alone = [float(backend.numpy(spread(backend.array(window, "float32")))) for window in windows]
    np.testing.assert_array_equal(together, np.asarray(alone, dtype=np.float32))
