"""InfoBatch: what is kept, with which weight, and that the weighted sum is unbiased."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds


def pool(ids, length=5.0):
    return {"id": np.asarray(ids), "length": np.full(len(ids), length, np.float32)}


def after_one_epoch(policy, losses) -> Any:
    """The state once every sample was trained, with these losses by id."""
    selection, state = policy.choose(None, pool(range(len(losses))))
    assert sorted(selection.indices.tolist()) == list(range(len(losses)))
    return policy.learn(state, np.asarray(losses, np.float32)[selection.indices])


def test_in_the_first_epoch_all_are_kept_with_weight_1():
    selection, state = uds.InfoBatch(prune=0.9).choose(None, pool(range(6)))
    assert sorted(selection.indices.tolist()) == list(range(6))
    assert selection.weights is not None
    assert selection.weights.tolist() == [1.0] * 6
    assert uds.InfoBatch().pending(state) == 6


def test_high_losses_and_unknown_samples_are_always_kept_and_low_ones_weigh_more():
    policy = uds.InfoBatch(prune=0.75)
    state = after_one_epoch(policy, [1.0, 1.0, 1.0, 9.0])
    counts, weights = np.zeros(5), set()
    for _ in range(400):
        selection, state = policy.choose(state, pool([0, 1, 2, 3, 77]))
        state = policy.learn(state, np.full(policy.pending(state), np.nan, np.float32))
        counts[selection.indices] += 1
        assert selection.weights is not None
        weights |= {*zip((selection.indices >= 3).tolist(), selection.weights.tolist(), strict=True)}
    assert counts[3] == counts[4] == 400
    np.testing.assert_allclose(counts[:3] / 400, 0.25, atol=0.08)
    assert weights == {(False, 4.0), (True, 1.0)}


@given(seed=st.integers(0, 100), prune=st.sampled_from([0.2, 0.5, 0.8]))
def test_the_weighted_sum_estimates_the_sum_over_all(seed, prune):
    rng = np.random.default_rng(seed)
    policy = uds.InfoBatch(prune=prune, seed=seed)
    state, values, sums = after_one_epoch(policy, rng.uniform(size=12)), rng.normal(size=12), []
    for _ in range(600):
        selection, state = policy.choose(state, pool(range(12)))
        state = policy.learn(state, np.full(policy.pending(state), np.nan, np.float32))
        assert selection.weights is not None
        sums.append(float(values[selection.indices] @ selection.weights))
    assert abs(np.mean(sums) - values.sum()) < 5 * np.std(sums) / np.sqrt(len(sums)) + 1e-6


def test_a_pool_keeps_one_sample_at_least():
    policy = uds.InfoBatch(prune=0.99)
    state = after_one_epoch(policy, [1.0, 1.0, 5.0])
    sizes = set()
    for _ in range(50):
        selection, state = policy.choose(state, pool([0, 1]))
        state = policy.learn(state, np.full(policy.pending(state), np.nan, np.float32))
        sizes.add(len(selection.indices))
    assert min(sizes) == 1
    selection, _ = policy.choose(state, pool([]))
    assert len(selection.indices) == 0


def test_the_latest_loss_counts_and_a_saved_state_is_the_same(backend):
    policy: Any = uds.InfoBatch(prune=0.5)
    like = {"length": backend.array(np.ones(3), "float32"), "id": backend.array(np.arange(3), "int32")}
    _, state = policy.choose(None, like)
    _, state = policy.choose(state, like)
    assert policy.pending(state) == 6
    state = policy.learn(state, backend.array(np.array([1, 2, 3, 4, 5, np.nan]), "float32"))
    first = [state.losses.look_up(np.array([i]))[0] for i in range(3)]
    restored: Any = uds.restore(policy.init(like), uds.flatten(state))
    assert sorted(first) == sorted(restored.losses.values.tolist())
    assert policy.pending(restored) == 0


@pytest.mark.parametrize("prune", [-0.1, 1.0, float("nan")])
def test_the_probability_is_checked(prune):
    with pytest.raises(ValueError, match=r"`prune` must be in \[0, 1\)"):
        uds.InfoBatch(prune=prune)


def test_losses_that_do_not_fit_are_refused():
    policy = uds.InfoBatch()
    _, state = policy.choose(None, pool(range(3)))
    with pytest.raises(ValueError, match="`scores` must have one for each of 3 chosen samples"):
        policy.learn(state, np.zeros(2, np.float32))
