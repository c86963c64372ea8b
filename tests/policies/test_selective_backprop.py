"""Selective backpropagation, in both forms: percentiles, chances and draws as the oracle has them."""

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


def loss_of(pool):
    return reference.cross_entropy(pool.logits, np.where(pool.scored, pool.labels, -100))


def features(loss):
    return {"loss": np.asarray(loss, np.float32), "length": np.ones(len(loss), np.float32)}


@pytest.mark.parametrize("options", [{"keep": 0.5}, {"count": 3}, {"keep": 0.5, "beta": 2.5}])
def test_the_rank_form_draws_by_percentiles_of_the_pool(backend, options):
    policy, state = uds.SelectiveBackprop(seed=4, **options), None
    for step in range(10):
        pool = pools.samples(step)
        indices, selection, state = pools.picks(policy, backend, state, pool)
        # Composer's: (r + 1/2) / B to the power of 1/keep - 1
        rank = np.argsort(np.argsort(loss_of(pool)))
        chance = ((rank + 0.5) / pools.BATCH) ** options.get("beta", 1.0)
        np.testing.assert_allclose(backend.numpy(selection.scores), chance, rtol=1e-5)
        assert indices == reference.drawn(chance, count=3, seed=4, step=step)


def test_the_rank_form_keeps_each_rank_as_often_as_its_chance_says():
    policy, counts = uds.SelectiveBackprop(count=1), np.zeros(4)
    state = None
    for _ in range(2000):
        selection, state = policy.choose(state, features([4, 1, 3, 2]))
        counts[selection.indices] += 1
    chance = np.array([7, 1, 5, 3]) ** 3.0
    expected = 2000 * chance / chance.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 0.999 quantile at 3 degrees of freedom


@pytest.mark.parametrize("window", [4, 20])
def test_the_history_form_accepts_each_sample_with_its_own_chance(backend, window):
    policy = uds.SelectiveBackprop(form="history", beta=1.5, window=window, seed=2)
    slow, state = reference.SelectiveBackprop(beta=1.5, window=window, seed=2), None
    numbers = set()
    for step in range(20):
        pool = pools.samples(step)
        given = policy.examine(pools.candidates(backend, pool))
        if step == 10:
            state = uds.restore(policy.init(given), uds.flatten(state))
        selection, state = policy.choose(state, given)
        accepted, chance, limit = slow.step(loss_of(pool))
        np.testing.assert_allclose(backend.numpy(selection.scores), chance / limit, rtol=1e-4)
        np.testing.assert_allclose(backend.numpy(selection.parts["probability"]), chance, rtol=1e-4)
        got = backend.numpy(selection.indices).tolist()
        assert sorted(got) == accepted or (not accepted and len(got) == 1)
        numbers.add(len(got))
    assert len(numbers) > 1  # as many as are accepted


@pytest.mark.parametrize("form", ["rank", "history"])
def test_a_sample_without_a_loss_is_never_drawn_also_where_all_are_alike(form):
    """NaN to the power of 0 is 1, which would be the probability of a good sample."""
    policy, state = uds.SelectiveBackprop(count=3, form=form, beta=0.0), None
    for _ in range(50):
        selection, state = policy.choose(state, features([4, np.nan, 3, 2]))
        assert 1 not in selection.indices
        assert np.isnan(selection.scores[1])


def test_the_history_form_with_a_budget_keeps_the_accepted_first():
    for seed in range(50):
        options = {"form": "history", "beta": 1.0, "seed": seed}
        free, _ = uds.SelectiveBackprop(**options).choose(None, features([4, 1, 3, 2]))
        held, _ = uds.SelectiveBackprop(count=2, **options).choose(None, features([4, 1, 3, 2]))
        assert len(held.indices) == 2
        assert set(free.indices) <= set(held.indices) or set(held.indices) <= set(free.indices)
        np.testing.assert_array_equal(free.scores, held.scores)


def test_the_history_form_keeps_its_share_on_average():
    policy, state, kept = uds.SelectiveBackprop(form="history", beta=3.0, window=512), None, []
    rng = np.random.default_rng(0)
    for _ in range(400):
        selection, state = policy.choose(state, features(rng.exponential(size=16)))
        kept.append(len(selection.indices) / 16)
    assert np.mean(kept[40:]) == pytest.approx(0.25, abs=0.02)  # 1 / (beta + 1)


def test_each_group_has_one_at_least():
    groups = np.array([0, 0, 1, 1])
    policy = uds.SelectiveBackprop(form="history", beta=1e6)
    selection, _ = policy.choose(None, features([4, 1, 3, 2]), groups=groups)
    assert sorted(groups[selection.indices].tolist()) == [0, 1]
    kept, _ = uds.SelectiveBackprop(count=1).choose(None, features([4, 1, 3, 2]), groups=groups)
    assert sorted(groups[kept.indices].tolist()) == [0, 1]
    # one of two: beta is 1
    np.testing.assert_allclose(kept.scores, [7 / 8, 1 / 8, 5 / 8, 3 / 8])


@pytest.mark.parametrize("form", ["rank", "history"])
def test_samples_without_rows_move_no_percentile(form):
    policy = uds.SelectiveBackprop(keep=None if form == "history" else 1.0, form=form, beta=1.0)
    alone, _ = policy.choose(None, features([4, 1, 3, 2]))
    more = {"loss": np.array([4, 1, 3, 2, 0, 0], np.float32), "length": np.array([1, 1, 1, 1, 0, 0], np.float32)}
    beside, state = policy.choose(None, more)
    np.testing.assert_array_equal(beside.parts["probability"][:4], alone.parts["probability"])
    assert np.isnan(state.losses[-2:]).all() or form == "rank"
    assert state.losses.shape == ((1,) if form == "rank" else (1024,))


def test_a_count_beyond_the_pool_favours_nobody():
    selection, _ = uds.SelectiveBackprop(count=9).choose(None, features([4, 1, 3, 2]))
    assert selection.scores.tolist() == [1, 1, 1, 1]


def test_without_a_share_everything_is_kept():
    for form in ("rank", "history"):
        with pytest.warns(UserWarning, match="SelectiveBackprop has no budget"):
            selection, _ = uds.SelectiveBackprop(form=form).choose(None, features([4, 1, 3, 2]))
        assert sorted(selection.indices.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "cdf"}, "`form` must be one of 'rank', 'history', got 'cdf'"),
        ({"beta": -1.0}, "`beta` must be a number of at least 0 or None, got -1.0"),
        ({"window": 0}, "`window` must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"keep": 2.0}, "`keep` must be a fraction"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.SelectiveBackprop(**options)
