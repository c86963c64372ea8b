"""Predicted: it learns from trained samples, explores, falls back, and takes its budget from the policy inside."""

from typing import Any

import numpy as np
import pytest
import reference
from pools import BATCH, candidates, samples

import uds_core as uds
from uds_core.policies._explored import Pairs, mixed

WIDTH = 6
TABLE = np.random.default_rng(5).normal(size=(30, WIDTH)).astype(np.float32)
SLOPE = np.random.default_rng(6).normal(size=WIDTH)


def pool(seed, batch=16, *, exact=False):
    """Features of a pool, and the scores that a model would give: a function of the target's embeddings."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(TABLE), size=(batch, 8))
    labels = np.where(np.arange(8) < 3, -100, ids)
    glance = uds.glance(ids, labels, TABLE)
    truth = np.exp(glance[:, :WIDTH] @ SLOPE).astype(np.float32)
    features: dict[str, Any] = {"glance": glance, "length": np.full(batch, 5, np.float32)}
    return ({**features, "exact": truth} if exact else features), truth


def run(policy, steps, *, warmup=3, state: Any = None, first=0, noise=None) -> tuple[Any, Any]:
    """The choices of some steps, and the state after them, with the training pass as the teacher."""
    chosen = []
    for step in range(first, first + steps):
        features, truth = pool(step, exact=step < warmup)
        if noise is not None:
            truth = noise.uniform(1, 2, size=truth.shape).astype(np.float32)
            features = {**features, "exact": truth} if "exact" in features else features
        selection, state = policy.choose(state, features)
        chosen.append((selection, truth))
        awaited = policy.pending(state)
        state = policy.learn(state, truth[selection.indices][:awaited])
    return chosen, state


def test_it_learns_to_choose_what_the_exact_score_would():
    chosen, state = run(uds.Predicted("entropy", count=4, explore=0.0), 40)
    late = chosen[20:]
    best = [np.sort(truth)[-4:].mean() for _, truth in late]
    got = [truth[selection.indices].mean() for selection, truth in late]
    average = [truth.mean() for _, truth in late]
    assert np.mean(got) > np.mean(average) + 0.9 * (np.mean(best) - np.mean(average))
    assert state.glances.shape[0] == 0


def test_the_prediction_is_the_regression_of_the_reference():
    policy = uds.Predicted("maxloss", count=4, explore=0.0)
    chosen, state = run(policy, 8)
    steps = []
    for step, (selection, truth) in enumerate(chosen):
        features, _ = pool(step)
        taught = slice(None) if step < 3 else selection.indices
        steps.append((features["glance"][taught].astype(float), np.log1p(truth[taught]).astype(float)))
    features, _ = pool(99)
    expected = reference.ridge(steps, features["glance"], forget=0.95, penalty=0.5, inertia=0.8)
    selection, _ = policy.choose(state, features)
    np.testing.assert_allclose(np.log1p(selection.parts["predicted"]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("explore", "number"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_fraction_of_what_is_chosen_is_drawn_at_random(explore, number):
    order = mixed(np.arange(16.0), explore, groups=None, seed=0, step=3)
    first = np.argsort(-order.priority)[:4]
    assert order.explored(4)[first].sum() == number
    assert len(set(first)) == 4
    if not number:
        assert first.tolist() == [15, 14, 13, 12]


def test_random_places_are_drawn_from_all_alike():
    counts = np.zeros(8)
    for step in range(2000):
        order = mixed(np.arange(8.0), 0.5, groups=None, seed=1, step=step)
        counts += order.explored(4)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.15)


def test_each_group_has_its_own_order():
    scores = np.concatenate([np.arange(8.0), 100 + np.arange(8.0)])
    order = mixed(scores, 0.0, groups=np.repeat([0, 1], 8), seed=0, step=0)
    assert set(np.argsort(-order.priority, kind="stable")[:2]) == {7, 15}


def test_a_sample_without_a_score_has_no_priority():
    order = mixed(np.array([1.0, np.nan, 3.0]), 0.5, groups=None, seed=0, step=0)
    assert np.isnan(order.priority).tolist() == [False, True, False]


def test_the_correlation_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 100)).round(1)
    pairs = Pairs.empty().add(x, y + x)
    assert pairs.correlation() == pytest.approx(stats.spearmanr(x, y + x).statistic)
    assert np.isnan(Pairs.empty().add(x[:63], y[:63]).correlation())
    assert np.isnan(Pairs.empty().add(np.ones(100), y).correlation())
    spoilt = Pairs.empty().add(np.append(x, np.nan), np.append(y + x, 1.0))
    assert spoilt.correlation() == pairs.correlation()


def test_where_predictions_do_not_rank_choices_are_random_with_a_warning():
    policy = uds.Predicted("entropy", count=4, least_correlation=0.5)
    with pytest.warns(UserWarning, match=r"of Entropy do not rank the samples .* choices are random until it rises"):
        chosen, state = run(policy, 60, noise=np.random.default_rng(0))
    assert state.falls_back
    selection, _ = chosen[-1]
    assert selection.parts["explored"][selection.indices].all()


def test_choices_are_by_prediction_again_once_it_ranks():
    policy = uds.Predicted("entropy", count=4, least_correlation=0.5)
    with pytest.warns(UserWarning, match="do not rank"):
        _, state = run(policy, 60, noise=np.random.default_rng(0))
    _, state = run(policy, 80, state=state, first=60)
    assert not state.falls_back


def test_a_saved_state_continues_bit_for_bit_between_a_choice_and_its_scores():
    policy = uds.Predicted("entropy", count=4)
    _, state = run(policy, 6)
    features, truth = pool(50)
    selection, state = policy.choose(state, features)
    restored = uds.restore(policy.init(features), uds.flatten(state))
    scores = truth[selection.indices]
    after = [uds.flatten(policy.learn(one, scores)) for one in (state, restored)]
    for name, array in after[0].items():
        np.testing.assert_array_equal(array, after[1][name])


def test_several_choices_may_await_their_scores_and_unknown_ones_teach_nothing():
    policy = uds.Predicted("entropy", count=4, warmup=0)
    _, state = run(policy, 2, warmup=2)
    for step in range(2):
        _, state = policy.choose(state, pool(step)[0])
    assert policy.pending(state) == 8
    before = state.learner
    state = policy.learn(state, np.full(8, np.nan, np.float32))
    assert policy.pending(state) == 0
    np.testing.assert_array_equal(before.second, state.learner.second)


def test_what_awaits_its_scores_is_bounded():
    policy: Any = uds.Predicted("entropy", count=16)
    state: Any = None
    for step in range(70):
        _, state = policy.choose(state, pool(step)[0])
    assert policy.pending(state) == 1024


def test_the_budget_is_its_own_or_that_of_the_policy_inside():
    assert uds.Predicted(uds.Entropy(keep=0.25)).keep == 0.25
    assert uds.Predicted(uds.Entropy(keep=0.25), count=3).count == 3
    assert uds.Predicted(uds.Entropy(keep=0.25), count=3).keep is None
    assert uds.Predicted(uds.UDS(tokens=50)).tokens == 50
    assert uds.Predicted(uds.Entropy(keep=0.25)).policy.keep is None
    with pytest.warns(UserWarning, match="Predicted has no budget"):
        uds.Predicted("entropy").choose(None, pool(0)[0])


def test_text_names_the_policy_inside_and_its_options():
    policy: Any = uds.make_policy("predicted:uds,keep=0.25,alpha=0.5,explore=0.1")
    assert isinstance(policy.policy, uds.UDS)
    assert (policy.keep, policy.policy.alpha, policy.explore) == (0.25, 0.5, 0.1)
    default: Any = uds.make_policy("predicted", keep=0.5)
    assert isinstance(default.policy, uds.Entropy)
    with pytest.raises(ValueError, match="neither it nor entropy has an option 'alpha'"):
        uds.make_policy("predicted:entropy,alpha=1")


def test_its_needs_are_those_of_the_policy_inside_for_the_warmup_alone():
    needs = uds.Predicted("rholoss", keep=0.5, warmup=4).needs
    assert needs.glance
    assert needs.training_pass
    assert needs.columns == ("reference_loss",)
    assert [needs.forward_pass_at(choice) for choice in (0, 3, 4)] == [True, True, False]


@pytest.mark.parametrize("backend_policy", ["uds", "nuclearonly", "maxgrad", "rholoss", "frobenius", "maxloss"])
def test_every_score_that_is_a_number_can_be_predicted(backend, backend_policy):
    policy: Any = uds.Predicted(backend_policy, count=2)
    state: Any = None
    for step in range(3):
        selection, state = policy.choose(state, policy.examine(candidates(backend, samples(step))))
        assert backend.numpy(selection.indices).shape == (2,)
    features = dict(policy.examine(candidates(backend, samples(9))))
    exact = backend.numpy(features.pop("exact"))
    selection, state = policy.choose(state, features)
    assert policy.pending(state) == 2
    state = policy.learn(state, backend.array(exact[backend.numpy(selection.indices)], "float32"))
    assert policy.pending(state) == 0
    inside = policy.policy
    assert exact.shape == (BATCH,)
    np.testing.assert_array_equal(exact, backend.numpy(inside.label(inside.examine(candidates(backend, samples(9))))))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: uds.Predicted(uds.Random()), TypeError, "cannot be predicted, as it is not one number"),
        (lambda: uds.Predicted(uds.Longest()), ValueError, "cannot be predicted: its choice depends"),
        (lambda: uds.Predicted(uds.Quadrants()), ValueError, "cannot be predicted: its choice depends"),
        (lambda: uds.Predicted(uds.UDS(temperature=1.0)), ValueError, "cannot be predicted: its choice depends"),
        (lambda: uds.Predicted("predicted"), TypeError, "cannot be predicted, as it is not one number"),
        (lambda: uds.Predicted(explore=1.5), ValueError, r"`explore` must be in \[0, 1\]"),
        (lambda: uds.Predicted(warmup=-1), ValueError, "`warmup` must be a whole number of at least 0"),
        (lambda: uds.Predicted(forget=0.0), ValueError, r"`forget` must be in \(0, 1\]"),
        (
            lambda: uds.Predicted(count=1).examine(uds.Candidates(np.zeros((1, 2, 3)))),
            ValueError,
            "this policy reads `glance`, and the candidates came without",
        ),
        (
            lambda: uds.Predicted(count=1).learn(run(uds.Predicted(count=1), 1)[1], np.zeros(3, np.float32)),
            ValueError,
            "`scores` must have one for each of 0 chosen samples",
        ),
    ],
)
def test_errors_say_what_is_expected(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_score_of_ones_own_is_used_and_can_be_predicted(backend):
    class LowLoss(uds.MaxLoss):
        def score(self, features):
            return -features["loss"]

    features = uds.MaxLoss(count=2).examine(candidates(backend, samples(0)))
    loss = backend.numpy(features["loss"])
    plain, _ = LowLoss(count=2).choose(None, features)
    assert backend.numpy(plain.indices).tolist() == np.argsort(loss, kind="stable")[:2].tolist()
    policy = uds.Predicted(LowLoss(count=2), explore=0.0)
    selection, _ = policy.choose(None, policy.examine(candidates(backend, samples(0))))
    assert set(backend.numpy(selection.indices).tolist()) == set(backend.numpy(plain.indices).tolist())
