"""Cascade: a shortlist by predictions, exact scores of it, and a choice by those alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pools import candidates, samples

import uds_core as uds

WIDTH = 6
TABLE = np.random.default_rng(5).normal(size=(30, WIDTH)).astype(np.float32)
SLOPE = np.random.default_rng(6).normal(size=WIDTH)


def pool(seed, batch=16):
    """Features of a pool, and the scores that a model would give: a function of the target's embeddings."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(TABLE), size=(batch, 8))
    glance = uds.glance(ids, np.where(np.arange(8) < 3, -100, ids), TABLE)
    features: dict[str, Any] = {"glance": glance, "length": np.full(batch, 5, np.float32)}
    return features, np.exp(glance[:, :WIDTH] @ SLOPE).astype(np.float32)


def step_of(policy, state, seed, batch=16) -> tuple[Any, Any, Any, Any]:
    """One choice: features, shortlist, exact scores of it, selection."""
    features, truth = pool(seed, batch)
    features = policy.shortlist(state, features)
    features["exact"] = np.where(features["shortlist"] > 0, truth, np.float32(np.nan))
    selection, state = policy.choose(state, features)
    return selection, state, features, truth


def run(policy, steps, state: Any = None) -> tuple[list[Any], Any]:
    chosen = []
    for seed in range(steps):
        selection, state, features, truth = step_of(policy, state, seed)
        chosen.append((selection, features, truth))
    return chosen, state


def test_few_are_examined_and_the_best_of_all_are_kept_all_the_same():
    chosen, _ = run(uds.Cascade("entropy", count=2, shortlisted=0.5, warmup=5), 40)
    assert [int((features["shortlist"] > 0).sum()) for _, features, _ in chosen] == [16] * 5 + [8] * 35
    late = chosen[20:]
    found = [len({*np.argsort(truth)[-2:]} & {*selection.indices.tolist()}) for selection, _, truth in late]
    assert np.mean(found) > 1.8


@given(seed=st.integers(0, 50), batch=st.integers(1, 20), shortlisted=st.floats(0.01, 1.0), explore=st.floats(0.0, 1.0))
def test_what_is_kept_is_the_best_of_the_shortlist(seed, batch, shortlisted, explore):
    policy = uds.Cascade("entropy", count=1, shortlisted=shortlisted, explore=explore, warmup=0)
    _, state, _, _ = step_of(policy, None, 1000 + seed)
    selection, _, features, truth = step_of(policy, state, seed, batch)
    on_it = np.flatnonzero(features["shortlist"])
    assert len(on_it) == uds.Budget(keep=shortlisted).size(batch)
    assert selection.indices.tolist() == [on_it[np.argmax(truth[on_it])]]


def test_the_shortlist_is_by_predictions_of_what_was_examined_and_in_part_random():
    policy = uds.Cascade("entropy", count=2, shortlisted=0.25, explore=0.5, warmup=3)
    _, state = run(policy, 10)
    features, _ = pool(77)
    place = policy.shortlist(state, features)["shortlist"]
    assert (place == 2).sum() == (place == 1).sum() == 2
    predicted = policy.predict(state.learner, features["glance"])
    drawn = place == 2
    best = np.flatnonzero(~drawn)[np.argsort(-predicted[~drawn])[:2]]
    assert {*best} == {*np.flatnonzero(place == 1)}


def test_the_correlation_is_taken_over_random_draws_alone():
    policy = uds.Cascade("entropy", count=2, shortlisted=0.25, explore=0.5, warmup=0)
    _, state = run(policy, 1)  # the first choice examines all, and nothing was predicted before it
    assert np.isfinite(state.pairs.predicted).sum() == 0
    _, state, features, _ = step_of(policy, state, 5)
    assert np.isfinite(state.pairs.predicted).sum() == (features["shortlist"] == 2).sum() == 2


def test_nothing_is_awaited_from_the_training_pass():
    policy = uds.Cascade("entropy", count=2)
    assert not policy.needs.training_pass
    assert policy.needs.shortlist
    assert all(policy.needs.forward_pass_at(choice) for choice in (0, 10, 1000))
    assert policy.pending(run(policy, 3)[1]) == 0


def test_where_predictions_do_not_rank_the_shortlist_is_random():
    policy = uds.Cascade("entropy", count=2, shortlisted=0.25, warmup=0, least_correlation=1.0)
    with pytest.warns(UserWarning, match="of Entropy do not rank the samples"):
        _, state = run(policy, 80)
    assert {*policy.shortlist(state, pool(99)[0])["shortlist"].tolist()} == {0.0, 2.0}


@pytest.mark.parametrize("inside", ["uds", "maxgrad", "rholoss"])
def test_any_policy_with_a_score_takes_a_shortlist(backend, inside):
    policy: Any = uds.Cascade(inside, count=2, shortlisted=0.5, warmup=1)
    state: Any = None
    for step in range(3):
        forwarded = candidates(backend, samples(step))
        features = dict(policy.examine(forwarded))
        exact = backend.numpy(features.pop("exact"))
        features = policy.shortlist(state, features)
        unknown = backend.numpy(features["shortlist"]) == 0
        assert unknown.sum() == (0 if step == 0 else len(exact) // 2)
        features["exact"] = backend.array(np.where(unknown, np.nan, exact), "float32")
        selection, state = policy.choose(state, features)
        chosen = backend.numpy(selection.indices)
        assert len(chosen) == 2
        assert not unknown[chosen].any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.Cascade(count=1, shortlisted=0.0), "`shortlisted` must be a fraction in"),
        (lambda: uds.Cascade(count=1).choose(None, pool(0)[0]), "`features` must have `exact`, the scores of a short"),
    ],
)
def test_errors_say_what_is_expected(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_more_than_the_shortlist_cannot_be_kept():
    policy = uds.Cascade("entropy", count=8, shortlisted=0.25, warmup=0)
    _, state, _, _ = step_of(policy, None, 0)
    with pytest.warns(UserWarning, match="too few have a score"):
        selection, *_ = step_of(policy, state, 1)
    assert len(selection.indices) == 4


def test_a_shortlist_has_at_least_as_many_samples_as_are_kept():
    policy = uds.Cascade("entropy", keep=0.5, shortlisted=0.25, warmup=0)
    _, state, _, _ = step_of(policy, None, 0)
    selection, _, features, _ = step_of(policy, state, 1)
    assert len(selection.indices) == np.count_nonzero(features["shortlist"]) == 8
