"""RDS: embeddings by position, and turns of the target's samples."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from pools import WIDTH, candidates, samples

import uds_core as uds

TARGET = reference.rds_embedding(samples(50).hidden, samples(50).mask)[:3]


def test_embeddings_are_those_of_the_reference(backend):
    pool = samples(0)
    got = backend.numpy(uds.RDS().embed(candidates(backend, pool)))
    np.testing.assert_allclose(got, reference.rds_embedding(pool.hidden, pool.mask), rtol=1e-4, atol=1e-5)
    dense = backend.numpy(uds.RDS().embed(candidates(backend, pool, dense=True)))
    np.testing.assert_allclose(dense, got, rtol=1e-5, atol=1e-6)


def test_padding_and_what_stands_in_it_change_nothing(backend):
    pool = samples(0)
    policy = uds.RDS(count=3, target=TARGET)
    plain = backend.numpy(policy.examine(candidates(backend, pool))["similarity"])
    for other in (pool.padded(2, 0), pool.padded(0, 3)):
        other.hidden[~other.mask] = np.nan
        got = backend.numpy(policy.examine(candidates(backend, other))["similarity"])
        np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-6)


def test_each_sample_of_the_target_takes_the_candidate_most_like_it(backend):
    policy, pool = uds.RDS(count=4, target=TARGET), samples(0)
    selection, _ = policy.choose(None, policy.examine(candidates(backend, pool)))
    similarity = reference.rds_embedding(pool.hidden, pool.mask) @ TARGET.T
    assert backend.numpy(selection.indices).tolist() == reference.in_turns(similarity, pool.length, 4)
    np.testing.assert_allclose(backend.numpy(selection.scores), similarity.max(1), rtol=1e-4, atol=1e-5)


@given(
    seed=st.integers(0, 100),
    batch=st.integers(0, 9),
    turns=st.integers(1, 4),
    count=st.integers(1, 12),
    bad=st.booleans(),
)
def test_turns_are_those_of_the_reference(seed, batch, turns, count, bad):
    rng = np.random.default_rng(seed)
    scores, length = rng.integers(0, 4, size=(batch, turns)).astype(float), rng.integers(0, 3, size=batch).astype(float)
    if bad and batch:
        scores[rng.integers(batch)] = np.nan
    picked = uds.round_robin(scores, length, budget=uds.Budget(count=count))
    assert picked.tolist() == reference.in_turns(scores, length, count)


def test_each_group_keeps_its_own():
    scores, ones = np.arange(12.0).reshape(6, 2), np.ones(6)
    groups = np.array([0, 0, 0, 1, 1, 1])
    picked = uds.round_robin(scores, ones, budget=uds.Budget(count=1), groups=groups)
    assert sorted(picked.tolist()) == [2, 5]


def test_a_sample_that_is_not_finite_is_not_kept():
    pool = samples(0)
    pool.hidden[1, np.flatnonzero(pool.mask[1])[0], 0] = np.nan
    policy = uds.RDS(keep=1.0, target=TARGET)
    features = policy.examine(uds.Candidates(uds.Head(np.ones((4, WIDTH)))(pool.hidden), mask=pool.mask))
    with pytest.warns(UserWarning, match="too few have a score"):
        selection, _ = policy.choose(None, features)
    assert sorted(selection.indices.tolist()) == [0, 2, 3, 4, 5]


HEAD = uds.Head(np.ones((4, WIDTH)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.RDS(target=np.ones(3)), "`target` must be embeddings"),
        (lambda: uds.RDS(target="a.jsonl"), "`target` must be embeddings"),
        (lambda: uds.RDS(count=1).examine(uds.Candidates(HEAD(np.ones((1, 2, WIDTH))))), "`target` is missing"),
        (
            lambda: uds.RDS(target=np.ones((2, 3))).examine(uds.Candidates(HEAD(np.ones((1, 2, WIDTH))))),
            "`target` has a width of 3, and the model's hidden states have 5",
        ),
        (lambda: uds.RDS().embed(uds.Candidates(np.ones((1, 2, 4)))), "RDS reads the hidden states"),
        (lambda: uds.round_robin(np.ones((3, 0)), np.ones(3), budget=uds.Budget()), "at least one turn"),
    ],
)
def test_errors_say_what_is_expected(make: Any, words):
    with pytest.raises(ValueError, match=words):
        make()
