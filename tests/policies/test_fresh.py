"""Fresh: equal to the reference in both forms, near-duplicates last, and random where there are none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


def repeated(step):
    """Samples of which some are those of the step before, or of the same pool, with a little noise."""
    pool, before = pools.samples(step), pools.samples(step - 1 if step else 99)
    rng = np.random.default_rng(step)
    for place, (source, i) in enumerate(((before, 0), (before, 3), (pool, 5)), start=1):
        for part, other in zip((*pool[:3], pool.tokens), (*source[:3], source.tokens), strict=True):
            part[place] = other[i]
        pool.hidden[place] += 1e-3 * rng.normal(size=pool.hidden[place].shape)
    return pool


def features_of(backend, sketches, *, by):
    """Features of samples of equal length."""
    rows = backend.array(sketches, "int32" if by == "tokens" else "float32")
    return {"ngrams" if by == "tokens" else "sketch": rows, "length": backend.array(np.ones(len(sketches)), "float32")}


def distinct(number, dim, *, by):
    """Sketches of samples that have nothing in common."""
    return np.arange(number * dim).reshape(number, dim) if by == "tokens" else np.eye(number, dim)


both = pytest.mark.parametrize("by", ["tokens", "logits"])


def test_twenty_steps_choose_as_the_oracle_does_also_through_a_saved_state(backend):
    policy = uds.Fresh(by="logits", keep=0.5, memory=8, dim=16, seed=4)
    slow, state, copies = reference.Fresh(keep=0.5, threshold=0.5, memory=8, dim=16, seed=4), None, 0
    for step in range(20):
        pool = repeated(step)
        if step % 5 == 4:
            pool.labels[4] = -100  # nothing to score
        features = policy.examine(pools.candidates(backend, pool))
        if step == 10:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = slow.step(pool.logits, pool.scored)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-5)
        copies += backend.numpy(selection.parts["near_duplicate"]).sum()
    assert 20 < copies < 60  # some, not all


def test_twenty_steps_by_tokens_choose_as_the_oracle_does_also_through_a_saved_state(backend):
    policy = uds.Fresh(keep=0.5, memory=8, seed=4)
    slow, state, copies = reference.FreshTokens(keep=0.5, threshold=0.5, memory=8, seed=4), None, 0
    for step in range(20):
        pool = repeated(step)
        if step % 5 == 4:
            pool.labels[4] = -100  # nothing to train
        candidates = pools.candidates(backend, pool)
        features = policy.examine(candidates)
        if step == 10:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores, similar = slow.step(backend.numpy(candidates.ngrams), pool.length)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-5)
        np.testing.assert_allclose(backend.numpy(selection.parts["similarity"]), similar, rtol=1e-6)
        copies += backend.numpy(selection.parts["near_duplicate"]).sum()
    assert 20 < copies < 60  # some, not all


@both
def test_without_copies_it_is_chance(by):
    fresh, random = uds.Fresh(by=by, count=3, dim=40, seed=5), uds.Random(count=3, seed=5)
    states: list[Any] = [None, None]
    for axes in np.split(distinct(40, 40, by=by), 5):
        features = {"ngrams" if by == "tokens" else "sketch": axes.astype("i4" if by == "tokens" else "f8")}
        one, states[0] = fresh.choose(states[0], {**features, "length": np.ones(8)})
        other, states[1] = random.choose(states[1], {"length": np.ones(8)})
        np.testing.assert_array_equal(one.indices, other.indices)
        assert float(one.metrics["near_duplicates"]) == 0


@both
def test_of_copies_one_is_kept_while_something_else_is_left(backend, by):
    features = features_of(backend, np.repeat(distinct(4, 16, by=by), 2, axis=0), by=by)
    for seed in range(20):
        policy = uds.Fresh(by=by, count=4, memory=8, dim=16, seed=seed)
        selection, state = policy.choose(None, features)
        assert sorted(i // 2 for i in backend.numpy(selection.indices).tolist()) == [0, 1, 2, 3]
        assert float(backend.numpy(selection.metrics["near_duplicates"])) == 0.5
        again, _ = policy.choose(state, features)
        assert (backend.numpy(again.scores) < 0).all()
        assert backend.numpy(again.indices).shape == (4,)  # what is asked for is kept, of copies too


@both
def test_a_whole_data_set_may_be_one_pool(monkeypatch, by):
    """Blocks change nothing."""
    rng = np.random.default_rng(0)
    rows = distinct(35, 40, by=by) * 1.0
    rows = np.concatenate([rows[:30], np.repeat(rows[30:], 4, axis=0)]) + 1e-3 * rng.normal(size=(50, 1))
    features = features_of(pools_backend(), np.round(rows) if by == "tokens" else rows, by=by)
    whole, _ = uds.Fresh(by=by, count=35, dim=40).choose(None, features)
    monkeypatch.setattr("uds_core.policies._near._BLOCK", 7)
    monkeypatch.setattr("uds_core.ngrams._BLOCK", 40 * 50 * 3)
    parts, _ = uds.Fresh(by=by, count=35, dim=40).choose(None, features)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    assert whole.parts["near_duplicate"].sum() == 15


def pools_backend():
    from conftest import Backend

    return Backend("numpy", np)


@pytest.mark.parametrize(("close", "flagged"), [(1.0, 0), (0.2, 10)])
def test_sketches_that_lie_close_together_are_no_near_duplicates_for_that(close, flagged):
    """All lie around one point, as those of a language model do: only the nearest of all are near-duplicates."""
    rng = np.random.default_rng(0)
    around = rng.normal(size=(40, 64))
    apart = np.concatenate([5 * rng.normal(size=(1, 64)) + around, around[:10] + close * rng.normal(size=(10, 64))])
    apart[40:] += apart[0] - around[0]
    got = uds.Fresh(by="logits", count=20, dim=64).choose(None, {"sketch": apart, "length": np.ones(50)})[0]
    assert got.parts["near_duplicate"].sum() == flagged


def test_a_template_that_all_samples_share_makes_no_near_duplicates(backend):
    """Nine tokens of ten are those of a system prompt."""
    rng = np.random.default_rng(0)
    own = rng.integers(100, 4000, size=(24, 20))
    own[5], own[9] = own[2], np.where(np.arange(20) == 10, 7, own[3])  # an exact copy, and one with another word
    tokens = np.concatenate([np.tile(np.arange(180), (24, 1)), own], axis=1)
    ngrams = uds.ngram_sketch(backend.array(tokens))
    features = {"ngrams": ngrams, "length": backend.array(np.ones(24), "float32")}
    selection, _ = uds.Fresh(count=6).choose(None, features)
    assert np.flatnonzero(backend.numpy(selection.parts["near_duplicate"])).tolist() == [5, 9]
    assert backend.numpy(uds.jaccard(ngrams[:1, :], ngrams[1:, :])).min() > 0.6  # which would be far over the threshold


def test_a_pool_of_one_sample_repeated_is_all_near_duplicates():
    features = features_of(pools_backend(), np.repeat(distinct(1, 16, by="tokens"), 40, axis=0), by="tokens")
    selection, _ = uds.Fresh(count=4).choose(None, features)
    assert selection.parts["near_duplicate"].tolist() == [0] + 39 * [1]


def test_another_policy_chooses_among_the_samples_that_are_no_near_duplicates(backend):
    """It chooses as it does where near-duplicates are not there; of them only where nothing else is left."""
    pool = repeated(1)
    policy, inner = uds.Fresh(uds.Entropy(keep=0.5), memory=8), uds.Entropy(count=6)
    features = policy.examine(pools.candidates(backend, pool))
    selection, state = policy.choose(None, features)
    flags = backend.numpy(selection.parts["near_duplicate"])
    order = backend.numpy(inner.choose(None, inner.examine(pools.candidates(backend, pool)))[0].indices)
    expected = [i for i in order if not flags[i]] + [i for i in order if flags[i]]
    assert 0 < flags.sum() < 3
    assert backend.numpy(selection.indices).tolist() == expected[:3]
    everything, _ = replace(policy, keep=1.0).choose(None, features)
    assert backend.numpy(everything.indices).tolist() == expected
    scores = backend.numpy(selection.scores)
    assert scores[flags == 1].max() <= scores[flags == 0].min()
    assert set(uds.flatten(state)) == {"memory.rows", "memory.size", "memory.cursor", "distances", "step", "recipe"}


def test_what_the_policy_inside_learns_from_training_reaches_it():
    backend, pool = pools_backend(), pools.samples(0)
    inner = uds.Predicted("entropy", keep=0.5, warmup=0)
    policy = uds.Fresh(inner)
    assert policy.needs == replace(inner.needs, ngrams=True, divisible=True)
    assert (policy.keep, policy.policy.keep) == (0.5, None)
    candidates = pools.candidates(backend, pool)
    tokens = {"glance": candidates.glance, "ngrams": candidates.ngrams}
    assert policy.pending(None) == 0
    _, state = policy.choose(None, policy.examine(uds.Candidates(None, labels=pool.labels, mask=pool.mask, **tokens)))
    assert policy.pending(state) == 3
    np.testing.assert_array_equal(policy.measure(candidates), inner.measure(candidates))
    learnt = policy.learn(state, policy.measure(candidates)[:3])
    assert policy.pending(learnt) == 0
    assert float(learnt.policy.learner.weight) > 0


@pytest.mark.parametrize("options", [{"seed": 1}, {"length": "none"}, {"sketch": "shifted"}, {"rows": "tokens"}])
def test_a_memory_of_other_sketches_is_refused(options):
    features = {"sketch": np.ones((2, 8)), "length": np.ones(2)}
    policy = uds.Fresh(by="logits", keep=1.0, memory=4, dim=8)
    saved = uds.flatten(policy.choose(None, features)[1])
    assert uds.restore(replace(policy, threshold=0.1).init(features), saved).step == 1
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(replace(policy, **options).init(features), saved)


def test_a_memory_of_the_other_form_is_refused():
    """And one of n-gram sketches of another size."""
    tokens = {"ngrams": np.ones((2, 8), np.int32), "length": np.ones(2, np.float32)}
    policy = uds.Fresh(keep=1.0, memory=4)
    saved = uds.flatten(policy.choose(None, tokens)[1])
    assert saved["memory.rows"].dtype == np.int32
    assert uds.restore(replace(policy, seed=1).init(tokens), saved).step == 1  # only draws depend on it
    logits = {"sketch": np.ones((2, 8), np.float32), "length": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match="saved"):
        uds.restore(uds.Fresh(by="logits", keep=1.0, memory=4, dim=8).init(logits), saved)
    with pytest.raises(ValueError, match="saved"):
        uds.restore(policy.init({**tokens, "ngrams": np.ones((2, 16), np.int32)}), saved)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0"),
        ({"memory": 0}, "`memory` must be a whole number"),
        ({"rows": "all"}, "`rows` must be one of"),
        ({"keep": 0.5, "count": 1}, "give one of"),
        ({"by": "text"}, "`by` must be one of 'tokens', 'logits'"),
        ({"policy": uds.UDS(temperature=0.5)}, "draws samples with importance weights"),
        ({"policy": uds.Predicted("entropy"), "by": "logits"}, "which Predicted is there to avoid"),
        ({"policy": uds.GREATS(), "tokens": 100}, "GREATS has no budget `tokens`"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.Fresh(**options)


@pytest.mark.parametrize("policy", [uds.Full(), uds.Entropy, 3])
def test_a_policy_without_a_budget_cannot_stand_inside(policy):
    with pytest.raises(TypeError, match="`policy` must be a policy with the options"):
        uds.Fresh(policy)


def test_candidates_without_what_is_compared_are_refused():
    labels = np.zeros((2, 3), np.int64)
    with pytest.raises(ValueError, match="this policy reads `ngrams`"):
        uds.Fresh(keep=0.5).examine(uds.Candidates(None, labels=labels))
    candidates = pools.candidates(pools_backend(), pools.samples(0))
    with pytest.raises(ValueError, match=r"Fresh\(by='logits'\) cannot hold UDS"):
        uds.Fresh(uds.UDS(keep=0.5), by="logits").examine(candidates)


def test_from_text_a_policy_stands_inside():
    policy = uds.make_policy("fresh:entropy,keep=0.5,rows=tokens")
    assert isinstance(policy, uds.Fresh)
    assert isinstance(policy.policy, uds.Entropy)
    assert policy.keep == 0.5


@pytest.mark.parametrize("inside", ["predicted", "progress", "cascade"])
def test_near_duplicates_by_logits_do_not_go_with_policies_that_avoid_the_forward_pass(inside):
    with pytest.raises(ValueError, match="runs the model on every candidate"):
        uds.Fresh(inside, by="logits", count=1)
