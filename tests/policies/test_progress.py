"""Progress: the difference of two memories, random in its warm-up, without any forward pass."""

from typing import Any

import numpy as np
import pytest
import reference

import uds_core as uds

WIDTH, TOKENS = 6, 30
TABLE = np.random.default_rng(5).normal(size=(TOKENS, WIDTH)).astype(np.float32)


def pool(seed, batch=16):
    """Features of a pool; half of its samples are of the first half of the tokens, the kind that is learnt."""
    rng = np.random.default_rng(seed)
    learnt = np.arange(batch) % 2 == 0
    ids = rng.integers(0, TOKENS // 2, size=(batch, 8)) + np.where(learnt, 0, TOKENS // 2)[:, None]
    labels = np.where(np.arange(8) < 3, -100, ids)
    features: dict[str, Any] = {"glance": uds.glance(ids, labels, TABLE), "length": np.full(batch, 5, np.float32)}
    return features, learnt


def losses(step, learnt):
    """Of samples that are learnt, which fall; of the others, noise, which stays as it is."""
    return np.where(learnt, 3.0 * 0.97**step, 3.0).astype(np.float32)


def run(policy, steps, *, state: Any = None, first=0) -> tuple[list[Any], Any]:
    chosen = []
    for step in range(first, first + steps):
        features, learnt = pool(step)
        selection, state = policy.choose(state, features)
        state = policy.learn(state, losses(step, learnt[selection.indices]))
        chosen.append((selection, learnt))
    return chosen, state


def test_it_keeps_what_is_being_learnt_though_the_loss_of_noise_is_higher():
    chosen, _ = run(uds.Progress(count=4, explore=0.25), 60)
    assert np.mean([learnt[selection.indices].mean() for selection, learnt in chosen[30:]]) > 0.75
    by_loss, _ = run(uds.Predicted("maxloss", count=4, warmup=0), 60)
    assert np.mean([learnt[selection.indices].mean() for selection, learnt in by_loss[30:]]) < 0.25


def test_the_score_is_the_difference_of_two_regressions_of_the_reference():
    policy = uds.Progress(count=4, warmup=0, explore=0.0)
    chosen, state = run(policy, 8)
    steps = []
    for step, (selection, learnt) in enumerate(chosen):
        glances = pool(step)[0]["glance"][selection.indices].astype(float)
        steps.append((glances, np.log1p(losses(step, learnt[selection.indices])).astype(float)))
    features, _ = pool(99)
    long, short = (
        np.expm1(reference.ridge(steps, features["glance"], forget=forget, penalty=0.5, inertia=0.8))
        for forget in (0.98, 0.93)
    )
    selection, _ = policy.choose(state, features)
    np.testing.assert_allclose(selection.scores, long - short, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(selection.parts["predicted"], long, rtol=1e-4, atol=1e-4)


def test_the_first_choices_are_random_and_no_candidate_is_ever_forwarded():
    policy = uds.Progress(count=4, warmup=3, explore=0.0, least_correlation=-1.0)
    assert not any(policy.needs.forward_pass_at(choice) for choice in range(20))
    assert policy.needs.training_pass
    chosen, _ = run(policy, 5)
    drawn = [selection.parts["explored"][selection.indices].all() for selection, _ in chosen]
    assert drawn == [True, True, True, False, False]


def test_a_saved_state_continues_bit_for_bit():
    policy = uds.Progress(count=4, warmup=2)
    _, state = run(policy, 6)
    restored = uds.restore(policy.init(pool(0)[0]), uds.flatten(state))
    straight, again = (run(policy, 4, state=one, first=6) for one in (state, restored))
    for (one, _), (other, _) in zip(straight[0], again[0], strict=True):
        np.testing.assert_array_equal(one.indices, other.indices)
    for name, array in uds.flatten(straight[1]).items():
        np.testing.assert_array_equal(array, uds.flatten(again[1])[name])


def test_other_scores_than_the_loss_may_make_progress():
    policy: Any = uds.make_policy("progress:entropy,keep=0.25,forget=0.9,forget_long=0.99")
    assert isinstance(policy.policy, uds.Entropy)
    assert (policy.learner.forget, policy.long_learner.forget) == (0.9, 0.99)


@pytest.mark.parametrize("forget_long", [0.93, 0.5, 1.1, float("nan")])
def test_the_long_memory_must_be_the_longer_one(forget_long):
    with pytest.raises(ValueError, match="`forget_long` must be above `forget`"):
        uds.Progress(count=1, forget_long=forget_long)
