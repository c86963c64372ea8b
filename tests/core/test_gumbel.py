"""Gumbel draws: importance weights, equality on every library, and samples that are never drawn."""

import numpy as np
import pytest
from indices import listed

import uds_core as uds


def draw(scores, length=None, *, seed, temperature=1.0, groups=None, **budget):
    scores = np.asarray(scores, dtype=np.float64)
    length = np.ones(len(scores)) if length is None else np.asarray(length, dtype=np.float64)
    options = {"temperature": temperature, "seed": (seed, 0), "groups": groups}
    return uds.gumbel_top_k(scores, length, budget=uds.Budget(**budget), **options)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
def test_weighted_sums_over_the_chosen_are_unbiased(temperature):
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=8), rng.normal(size=8) + 1
    estimates = []
    for seed in range(4000):
        drawn = draw(scores, seed=seed, temperature=temperature, count=3)
        estimates.append((drawn.weights * values[drawn.indices]).sum() / 8)
    error = np.mean(estimates) - values.mean()
    assert abs(error) < 3.5 * np.std(estimates) / np.sqrt(len(estimates))


def test_the_first_is_drawn_by_the_softmax():
    scores = np.array([0.0, 1.0, 2.0])
    counts = np.bincount([draw(scores, seed=s, temperature=2.0, count=1).indices[0] for s in range(3000)], minlength=3)
    expected = 3000 * np.exp(scores / 2) / np.exp(scores / 2).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # 0.999 quantile at 2 degrees of freedom


def test_cold_draws_are_top_k_and_all_have_weight_one(backend):
    scores = backend.array([1.0, 3.0, 2.0, 0.0], "float32")
    ones = backend.array(np.ones(4), "float32")
    drawn = uds.gumbel_top_k(scores, ones, budget=uds.Budget(count=2), temperature=1e-4, seed=(0, 0))
    assert backend.numpy(drawn.indices).tolist() == [1, 2]
    np.testing.assert_allclose(backend.numpy(drawn.weights), 1, rtol=1e-5)
    whole = uds.gumbel_top_k(scores, ones, budget=uds.Budget(), temperature=1.0, seed=(0, 0))
    assert sorted(backend.numpy(whole.indices).tolist()) == [0, 1, 2, 3]
    assert backend.numpy(whole.weights).tolist() == [1, 1, 1, 1]


def test_draws_are_the_same_on_every_library(backend):
    scores = np.random.default_rng(0).normal(size=12)
    groups = np.arange(12) % 2
    got = uds.gumbel_top_k(
        backend.array(scores, "float32"),
        backend.array(np.ones(12), "float32"),
        budget=uds.Budget(count=3),
        temperature=1.0,
        seed=(1, 2),
        groups=backend.array(groups, "int32"),
    )
    noise = np.random.default_rng([1, 8, 2, 0]).gumbel(size=12)
    expected = []
    for group in (0, 1):
        members = np.flatnonzero(groups == group)
        expected += members[np.argsort(-(scores + noise)[members])[:3]].tolist()
    assert listed(backend, got.indices) == expected


def test_a_constant_on_all_scores_changes_no_draw(backend):
    scores = np.random.default_rng(0).integers(-16, 17, size=12) / 8
    drawn = [
        uds.gumbel_top_k(
            backend.array(scores + constant, "float32"),
            backend.array(np.ones(12), "float32"),
            budget=uds.Budget(count=5),
            temperature=1.0,
            seed=(3, 1),
        )
        for constant in (0.0, 2.0**20, -(2.0**20))
    ]
    for other in drawn[1:]:
        assert listed(backend, other.indices) == listed(backend, drawn[0].indices)
        np.testing.assert_array_equal(backend.numpy(other.weights), backend.numpy(drawn[0].weights))


def test_weights_are_those_of_the_formula(backend):
    scores, temperature, k = np.random.default_rng(0).normal(size=9), 0.7, 4
    got = uds.gumbel_top_k(
        backend.array(scores, "float32"),
        backend.array(np.ones(9), "float32"),
        budget=uds.Budget(count=k),
        temperature=temperature,
        seed=(1, 2),
    )
    phi = scores / temperature - np.log(np.exp(scores / temperature).sum())
    noisy = phi + np.random.default_rng([1, 8, 2, 0]).gumbel(size=9)
    order = np.argsort(-noisy)
    assert listed(backend, got.indices) == order[:k].tolist()
    expected = 1 / (1 - np.exp(-np.exp(phi[order[:k]] - noisy[order[k]])))
    np.testing.assert_allclose(backend.numpy(got.weights), expected, rtol=1e-4)


def test_of_those_that_cannot_be_drawn_the_lower_index_comes_first(backend):
    length = backend.array(np.arange(60) == 7, "float32")
    for count in (59, 60):
        drawn = uds.gumbel_top_k(0 * length, length, budget=uds.Budget(count=count), temperature=1.0, seed=(0, 0))
        rest = [i for i in range(60) if i != 7]
        assert listed(backend, drawn.indices) == [7, *rest][:count]


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_drawn_comes_last_and_weighs_nothing(backend):
    scores = backend.array([np.nan, 1.0, 5.0, -np.inf], "float32")
    length = backend.array([1.0, 1.0, 0.0, 1.0], "float32")
    for count in (1, 3, 4):
        drawn = uds.gumbel_top_k(scores, length, budget=uds.Budget(count=count), temperature=1.0, seed=(0, 0))
        assert backend.numpy(drawn.indices)[0] == 1
        weights = backend.numpy(drawn.weights)
        assert np.isfinite(weights).all()
        unable = np.isin(backend.numpy(drawn.indices), [0, 2])
        assert (weights[unable] == 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"temperature": 0.0, "count": 1}, "`temperature` must be positive"), ({"tokens": 3}, "no unbiased weights")],
)
def test_impossible_draws(options, words):
    with pytest.raises(ValueError, match=words):
        draw([1.0, 2.0], seed=0, **options)
