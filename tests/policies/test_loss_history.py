"""Policies that remember losses by sample: equal to a dictionary, also through a saved state."""

from typing import Any

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


def loss_of(pool):
    return reference.cross_entropy(pool.logits, np.where(pool.scored, pool.labels, -100))


@pytest.mark.parametrize(
    ("policy", "oracle"),
    [
        (uds.LossDrop(keep=0.5), lambda: reference.LossDrop(keep=0.5)),
        (
            uds.LossEMA(keep=0.5, blend=0.3, decay=0.8, seed=5),
            lambda: reference.LossEMA(keep=0.5, blend=0.3, decay=0.8, seed=5),
        ),
    ],
    ids=["lossdrop", "lossema"],
)
def test_thirty_steps_choose_as_the_oracle_does_also_through_a_saved_state(backend, policy, oracle):
    slow, state = oracle(), None
    for step in range(30):
        pool = pools.samples(step)
        features = policy.examine(pools.candidates(backend, pool))
        if step == 15:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = slow.step(pool.ids, loss_of(pool))
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-4, atol=1e-5)


def test_lossdrop_keeps_what_is_learnt_least(backend):
    first, policy = pools.samples(0), uds.LossDrop(count=2)
    state: Any
    after: Any
    _, selection, state = pools.picks(policy, backend, None, first)
    assert backend.numpy(selection.scores).tolist() == [0.0] * pools.BATCH
    later = first._replace(hidden=first.hidden * np.array([1, 0.1, 3, 0.5, 2, 1])[:, None, None])
    expected = loss_of(later) - loss_of(first)
    indices, selection, after = pools.picks(policy, backend, state, later)
    assert indices == reference.best_first(expected, later.length)[:2]
    np.testing.assert_allclose(backend.numpy(selection.scores), expected, atol=1e-4)
    np.testing.assert_array_equal(after.values, state.values)  # the start stays the start


@pytest.mark.parametrize("known", ["column", "ledger"])
def test_lossdrop_may_be_given_the_losses_before_training(backend, known):
    pool = pools.samples(0)
    start = pool.reference_loss.astype(np.float32)
    features: Any
    state: Any
    if known == "ledger":
        policy = uds.LossDrop(keep=1.0, start=uds.Ledger.of(dict(zip(pool.ids.tolist(), start.tolist(), strict=True))))
        features = policy.examine(pools.candidates(backend, pool))
    else:
        policy = uds.LossDrop(keep=1.0, start="given")
        given = pools.candidates(backend, pool)
        given.extra["start_loss"] = backend.array(start, "float32")
        features = policy.examine(given)
    assert policy.needs.columns == (("start_loss",) if known == "column" else ())
    selection, state = policy.choose(None, features)
    np.testing.assert_allclose(backend.numpy(selection.scores), loss_of(pool) - start, atol=1e-5)
    assert state.ids.size == 0


def test_lossema_favours_what_had_a_high_loss():
    ids, length = np.arange(4), np.ones(4, np.float32)
    now = np.array([1, 1, 1, 1], np.float32)
    state = uds.LossEMA(keep=1.0).choose(None, {"loss": now * [0.1, 0.1, 0.1, 9], "length": length, "id": ids})[1]
    policy, counts = uds.LossEMA(count=1, blend=0.8), np.zeros(4)
    for seed in range(400):
        one = uds.LossEMA(count=1, blend=0.8, seed=seed)
        counts[one.choose(state, {"loss": now, "length": length, "id": ids})[0].indices] += 1
    weights = 0.8 * np.array([0.1, 0.1, 0.1, 9]) + 0.2
    expected = 400 * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # 0.999 quantile at 3 degrees of freedom
    assert policy.budget.size(4) == 1


@pytest.mark.parametrize("policy", [uds.LossDrop(keep=1.0), uds.LossEMA(keep=1.0)], ids=["lossdrop", "lossema"])
def test_a_sample_seen_twice_in_one_pool_and_what_cannot_be_remembered(policy):
    loss = np.array([3.0, 2.0, np.nan, 0.0], np.float32)
    features = {"loss": loss, "length": np.array([2, 2, 2, 0], np.float32), "id": np.array([7, 7, 8, 9])}
    with pytest.warns(UserWarning, match="too few have a score"):
        selection, state = policy.choose(None, features)
    book = state if isinstance(state, uds.Ledger) else state.averages
    assert book.ids.tolist() == [7]
    assert book.values.tolist() == pytest.approx([3.0])
    assert sorted(selection.indices[:2].tolist()) == [0, 1]
    assert selection.indices[2:].tolist() == [3]


@pytest.mark.parametrize("policy", [uds.LossDrop(), uds.LossEMA()], ids=["lossdrop", "lossema"])
@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (None, ValueError, "remembers samples by `ids`, and the candidates came without them: .*`id_field`"),
        (["a", "b"], TypeError, "`ids` must be whole numbers, got <U1"),
        ([1.0, 2.0], TypeError, "`ids` must be whole numbers, got float64"),
        ([1, 2, 3], ValueError, r"`ids` must have shape \(batch,\) = \(2,\), got \(3,\)"),
    ],
)
def test_ids_are_checked(policy, ids, error, words):
    logits, labels = np.zeros((2, 3, 4), np.float32), np.ones((2, 3), np.int64)
    with pytest.raises(error, match=words):
        policy.examine(uds.Candidates(logits, labels=labels, ids=ids))


def test_large_identities_are_kept_whole_or_refused(backend):
    ids = np.array([2**40, 2**40 + 1])
    candidates = uds.Candidates(backend.array(np.zeros((2, 3, 4)), "float32"), ids=ids)
    if backend.name == "jax":
        with pytest.raises(ValueError, match="do not fit into int32"):
            candidates.identity()
    else:
        assert backend.numpy(candidates.identity()).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blend": 1.5}, r"`blend` must be in \[0, 1\], got 1.5"),
        ({"decay": 1.0}, r"`decay` must be in \[0, 1\), got 1.0"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"keep": 0.0}, "`keep` must be a fraction"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.LossEMA(**options)


def trained_pool(ids):
    return {"id": np.asarray(ids), "length": np.full(len(ids), 5, np.float32)}


def test_lossdrop_of_trained_samples_keeps_what_dropped_least_and_what_is_new():
    policy: Any = uds.LossDrop(count=3, losses="trained")
    assert not policy.needs.forward_pass_at(0)
    _, state = policy.choose(None, trained_pool([10, 11, 12]))
    state = policy.learn(state, np.array([4.0, 4.0, 4.0], np.float32))
    _, state = policy.choose(state, trained_pool([10, 11, 12]))
    state = policy.learn(state, np.array([1.0, 3.0, 5.0], np.float32))
    selection, _ = policy.choose(state, trained_pool([10, 11, 12, 99]))
    assert selection.scores.tolist() == [-3.0, -1.0, 1.0, 0.0]
    assert selection.indices.tolist() == [2, 3, 1]


def test_of_a_sample_trained_twice_in_a_step_the_first_loss_is_the_start_and_the_last_the_latest():
    policy: Any = uds.LossDrop(count=2, losses="trained")
    _, state = policy.choose(None, trained_pool([7, 7]))
    state = policy.learn(state, np.array([4.0, 1.0], np.float32))
    selection, _ = policy.choose(state, trained_pool([7]))
    assert selection.scores.tolist() == [-3.0]


def test_lossdrop_of_trained_samples_may_be_given_the_losses_before_training():
    policy: Any = uds.LossDrop(count=1, losses="trained", start="given")
    assert policy.needs.columns == ("start_loss",)
    features = {**trained_pool([1, 2]), "start_loss": np.array([5.0, 2.0], np.float32)}
    _, state = policy.choose(None, features)
    state = policy.learn(state, np.array([3.0], np.float32))
    assert policy.choose(state, features)[0].scores.tolist() == [-2.0, 0.0]


def test_lossema_of_trained_samples_averages_what_was_trained_and_takes_the_mean_for_what_was_not():
    policy: Any = uds.LossEMA(count=1, decay=0.5, losses="trained")
    assert not policy.needs.forward_pass_at(0)
    first, state = policy.choose(None, trained_pool([0, 1]))
    assert first.scores.tolist() == [1.0, 1.0]
    chosen = int(first.indices[0])
    state = policy.learn(state, np.array([8.0], np.float32))
    second, state = policy.choose(state, trained_pool([chosen, 50]))
    assert second.scores.tolist() == [8.0, 8.0]
    again = [chosen, 50][int(second.indices[0])]
    state = policy.learn(state, np.array([2.0], np.float32))
    expected = {chosen: 5.0, 50: 5.0} if again == chosen else {chosen: 8.0, 50: 2.0}
    third, _ = policy.choose(state, trained_pool([chosen, 50]))
    assert third.scores.tolist() == [expected[chosen], expected[50]]


@pytest.mark.parametrize("policy", [uds.LossDrop(count=2, losses="trained"), uds.LossEMA(count=2, losses="trained")])
def test_losses_of_trained_samples_outlive_a_checkpoint_between_a_choice_and_its_losses(policy):
    state: Any = None
    for step in range(4):
        _, state = policy.choose(state, trained_pool(np.arange(step, step + 6)))
        if step % 2:
            state = policy.learn(state, np.arange(policy.pending(state), dtype=np.float32))
    _, state = policy.choose(state, trained_pool(np.arange(6)))
    restored: Any = uds.restore(policy.init(trained_pool(np.arange(6))), uds.flatten(state))
    losses = np.array([1.5, 2.5], np.float32)
    one, other = (policy.learn(before, losses) for before in (state, restored))
    for name, array in uds.flatten(one).items():
        np.testing.assert_array_equal(array, uds.flatten(other)[name])
    nothing = policy.learn(state, np.full(2, np.nan, np.float32))
    assert policy.pending(nothing) == 0
