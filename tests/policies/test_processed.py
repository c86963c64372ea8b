"""Budgets of processed tokens, prompts included, and scores for each of these tokens."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pools import candidates, samples

import uds_core as uds

TARGET = np.ones(64)
LIMITED: dict[str, Any] = {
    "random": uds.Random(seed=3),
    "longest": uds.Longest(),
    "maxloss": uds.MaxLoss(),
    "rholoss": uds.RHOLoss(),
    "entropy": uds.Entropy(),
    "quadrants": uds.Quadrants(),
    "frobenius": uds.Frobenius(),
    "maxgrad": uds.MaxGrad(),
    "uds": uds.UDS(memory=8, dim=16),
    "uds greedy": uds.UDS(memory=8, dim=16, in_batch="greedy"),
    "fresh": uds.Fresh(memory=8),
    "fresh entropy": uds.Fresh(uds.Entropy(), memory=8),
    "targeted": uds.Targeted(target=TARGET),
    "predicted": uds.Predicted("entropy", least_correlation=-1.0),
    "progress": uds.Progress(least_correlation=-1.0),
}


def sizes_of(pool):
    return pool.mask.sum(1).astype(float)


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("limit", [1, 8, 15, 10_000])
def test_no_more_tokens_are_kept_but_for_a_best_sample_that_is_longer(backend, name, limit):
    pool = samples(0)
    policy = replace(LIMITED[name], processed=limit)
    features = policy.examine(candidates(backend, pool))
    np.testing.assert_array_equal(backend.numpy(features["size"]), sizes_of(pool))
    kept = backend.numpy(policy.choose(None, features)[0].indices).tolist()
    assert kept
    assert len(kept) == len(set(kept))
    assert sum(sizes_of(pool)[kept]) <= limit or len(kept) == 1
    if limit == 10_000:
        assert sorted(kept) == np.flatnonzero(pool.length > 0).tolist()


def test_every_policy_with_a_budget_of_tokens_is_here():
    able = {name for name in uds.names() if "processed" in {field.name for field in fields(uds.get(name))}}  # type: ignore[arg-type]
    controls = {"shortest", "nuclearonly", "cascade"}  # as longest, frobenius and predicted
    assert able == {uds.name_of(policy) for policy in LIMITED.values()} | controls


@given(seed=st.integers(0, 20), limit=st.integers(1, 40))
def test_a_score_for_each_token_buys_the_best_ratio_first(seed, limit):
    pool = samples(seed)
    logits = uds.Candidates(
        pool.hidden @ np.random.default_rng(1).normal(size=(pool.hidden.shape[2], 9)),
        mask=pool.mask,
        labels=np.where(pool.labels < 0, -100, pool.labels % 9),
    )
    plain, policy = uds.MaxLoss(keep=1.0), uds.MaxLoss(processed=limit, per_token=True)
    loss = np.asarray(plain.choose(None, plain.examine(logits))[0].scores)
    selection, _ = policy.choose(None, policy.examine(logits))
    ratio = loss / np.maximum(sizes_of(pool), 1)
    np.testing.assert_allclose(selection.scores, ratio, rtol=1e-5)
    expected, left = [], float(limit)
    for i in np.argsort(-ratio, kind="stable"):
        if pool.length[i] > 0 and (sizes_of(pool)[i] <= left or not expected):
            expected.append(int(i))
            left -= sizes_of(pool)[i]
    assert selection.indices.tolist() == expected


def test_a_predicted_score_is_divided_after_the_prediction():
    policy: Any = uds.make_policy("predicted:maxloss,count=2,per_token=true,warmup=0,explore=0")
    assert policy.policy.per_token
    assert policy.reads_sizes
    features = {
        "glance": np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32),
        "length": np.ones(4, np.float32),
        "size": np.array([1, 2, 4, 8], np.float32),
    }
    _, state = policy.choose(None, {**features, "exact": np.array([4, 3, 2, 1], np.float32)})
    selection, _ = policy.choose(state, features)
    np.testing.assert_allclose(selection.scores, selection.parts["predicted"] / features["size"], rtol=1e-5)


def test_draws_with_importance_weights_take_no_budget_of_tokens():
    with pytest.raises(ValueError, match=r"excludes .* budgets of tokens"):
        uds.UDS(processed=9, temperature=1.0)
