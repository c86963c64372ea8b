"""Targeted: equal to the reference, finds the samples of the target, and stands before another policy."""

from dataclasses import replace

import numpy as np
import pools
import pytest
import reference

import uds_core as uds

TARGET = uds.ngram_counts(np.arange(400).reshape(4, 100) % 29, buckets=64)


def test_twenty_steps_choose_as_the_oracle_does_also_through_a_saved_state(backend):
    policy = uds.Targeted(keep=0.5, target=backend.array(TARGET, "float32"), noise=0.3, seed=4)
    slow, state = reference.Targeted(keep=0.5, target=TARGET.sum(axis=0), noise=0.3, seed=4), None
    for step in range(20):
        pool = pools.samples(step)
        if step % 5 == 4:
            pool.labels[4] = -100
        candidates = pools.candidates(backend, pool)
        features = policy.examine(candidates)
        if step == 10:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = slow.step(backend.numpy(candidates.ngram_counts).astype(float), pool.length)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-3, atol=1e-4)


def test_counts_are_those_of_own_tokens_and_neighbours(backend):
    """Hashed by the same functions, read from samples of one token and of two."""
    rng = np.random.default_rng(0)
    tokens, mask = rng.integers(0, 9, size=(3, 7)), np.zeros((3, 7), bool)
    mask[0, 2:6], mask[1, :] = True, True

    def single(a):
        return int(uds.ngram_counts(np.array([[a]]), buckets=128)[0].argmax())

    def pair(a, b):
        both = uds.ngram_counts(np.array([[a, b]]), buckets=128)[0]
        both[single(a)] -= 1
        both[single(b)] -= 1
        return int(both.argmax())

    got = backend.numpy(uds.ngram_counts(backend.array(tokens), mask=backend.array(mask), buckets=128))
    own = [list(row[there]) for row, there in zip(tokens, mask, strict=True)]
    np.testing.assert_array_equal(got, [reference.ngram_counts(row, 128, single, pair) for row in own])
    assert uds.ngram_counts(np.zeros((2, 0), int)).sum() == 0


def mixture(number=200):
    """Samples of two languages, one of them that of the target."""
    rng = np.random.default_rng(0)
    ours = rng.random(number) < 0.2
    ids = np.where(ours[:, None], rng.integers(0, 300, size=(number, 40)), rng.integers(200, 900, size=(number, 40)))
    return ours, {"ngram_counts": uds.ngram_counts(ids), "length": np.ones(number, np.float32)}


def test_samples_of_the_target_are_found_and_noise_lets_others_in():
    ours, features = mixture()
    target = uds.ngram_counts(np.random.default_rng(1).integers(0, 300, size=(50, 40)))
    policy = uds.Targeted(count=int(ours.sum()), target=target)
    assert ours[policy.choose(None, features)[0].indices].mean() > 0.95
    assert ours[replace(policy, noise=10.0).choose(None, features)[0].indices].mean() < 0.6


def test_another_policy_chooses_among_those_drawn():
    ours, features = mixture()
    target = uds.ngram_counts(np.random.default_rng(1).integers(0, 300, size=(50, 40)))
    policy = uds.Targeted(uds.Longest(count=10), target=target, among=0.15, noise=0.0)
    features["length"] = np.arange(1, 201).astype(np.float32)
    selection, _ = policy.choose(None, features)
    drawn = np.flatnonzero(selection.parts["drawn"])
    assert len(drawn) == 30
    assert ours[drawn].all()
    assert selection.indices.tolist() == drawn[::-1][:10].tolist()
    assert policy.needs == uds.Needs(logits=False, ngram_counts=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": np.zeros(64)}, "`target` must be counts"),
        ({"target": np.full(64, np.nan)}, "`target` must be counts"),
        ({"target": -np.ones(64)}, "`target` must be counts"),
        ({"noise": -1.0}, "`noise` must be a number of at least 0"),
        ({"among": 0.0}, "`among` must be a fraction"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.Targeted(**options)


@pytest.mark.parametrize("target", [None, np.ones(128)])
def test_a_target_that_is_missing_or_of_other_buckets_is_refused(target):
    _, features = mixture(4)
    with pytest.raises(ValueError, match="`target` must be counts of 1024 buckets"):
        uds.Targeted(keep=0.5, target=target).choose(None, features)


def test_buckets_are_a_multiple_of_64():
    with pytest.raises(ValueError, match="`buckets` must be a multiple of 64"):
        uds.ngram_counts(np.zeros((1, 2), int), buckets=100)
