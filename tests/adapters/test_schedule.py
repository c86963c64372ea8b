"""When to select, and how much to keep by then."""

import dataclasses
import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_adapters import schedule as module
from uds_adapters.schedule import Schedule

shares = st.floats(min_value=0.001, max_value=1.0)
curves = st.sampled_from(["linear", "cosine"])


def keeps(schedule, policy, steps):
    """The share of each selecting step among `steps`."""
    chosen = [schedule.policy(policy, step) for step in steps]
    return [policy.keep for policy in chosen if policy is not None]


def test_by_default_every_step_selects_with_the_policy_itself():
    policy = uds.UDS(keep=0.25)
    assert all(Schedule().policy(policy, step) is policy for step in range(5))


def test_before_the_start_and_between_the_intervals_whole_batches_are_trained():
    schedule, policy = Schedule(start_step=4, every=3), uds.Random(keep=0.5)
    assert [step for step in range(14) if schedule.policy(policy, step) is not None] == [4, 7, 10, 13]


def test_linear_and_cosine_by_hand():
    policy = uds.UDS(keep=0.2)
    linear = Schedule(start_step=10, every=5, curve="linear", initial=1.0, steps=4)
    assert keeps(linear, policy, range(40)) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    cosine = dataclasses.replace(linear, curve="cosine")
    middle = math.sqrt(0.5)
    expected = [1.0, 0.6 + 0.4 * middle, 0.6, 0.6 - 0.4 * middle, 0.2, 0.2]
    assert keeps(cosine, policy, range(40)) == pytest.approx(expected)


@given(curve=curves, initial=shares, last=shares, steps=st.integers(1, 200), every=st.integers(1, 7))
def test_it_begins_at_initial_ends_exactly_at_the_budget_and_never_turns(curve, initial, last, steps, every):
    schedule, policy = Schedule(curve=curve, initial=initial, steps=steps, every=every), uds.Random(keep=last)
    found = keeps(schedule, policy, range((steps + 3) * every))
    assert len(found) == steps + 3
    assert found[0] == pytest.approx(initial, rel=1e-15)
    assert found[steps:] == [last] * 3
    assert schedule.policy(policy, steps * every) is policy
    assert all(min(initial, last) <= share <= max(initial, last) for share in found)
    rises = np.diff(found) * (1 if last >= initial else -1)
    assert (rises >= -1e-15).all()


@given(curve=curves, initial=shares, last=shares, steps=st.integers(1, 200), start=st.integers(0, 50))
def test_the_mean_is_halfway_between_both_ends(curve, initial, last, steps, start):
    schedule = Schedule(start_step=start, curve=curve, initial=initial, steps=steps)
    found = keeps(schedule, uds.Random(keep=last), range(start + steps + 1))
    assert sum(found) / len(found) == pytest.approx((initial + last) / 2, rel=1e-12)


@given(step=st.integers(0, 10**12), start=st.integers(0, 100), every=st.integers(1, 9))
def test_steps_in_any_order_and_of_any_size_give_the_same(step, start, every):
    schedule, policy = Schedule(start_step=start, every=every, curve="linear", steps=50), uds.Longest(keep=0.5)
    schedule.policy(policy, start)
    assert schedule.policy(policy, step) == Schedule(**dataclasses.asdict(schedule)).policy(policy, step)


def test_everything_but_the_share_stays_and_the_state_fits():
    first, last = uds.UDS(keep=0.9, memory=4, dim=8, alpha=0.5, seed=3), uds.UDS(keep=0.3, memory=4, dim=8, seed=3)
    schedule = Schedule(curve="linear", initial=1.0, steps=10)
    scheduled = schedule.policy(first, 5)
    assert isinstance(scheduled, uds.UDS)
    assert scheduled.keep == pytest.approx(0.95)
    assert dataclasses.replace(scheduled, keep=0.9).__dict__ == first.__dict__
    features = scheduled.examine(uds.Candidates(np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)))
    _, state = scheduled.choose(None, features)
    restored = uds.restore(last.init(features), uds.flatten(state))
    assert restored.step == 1


def test_policies_without_a_share_cannot_be_scheduled():
    curve = Schedule(curve="cosine", steps=10)
    curve.check(uds.MaxLoss(keep=0.5))
    with pytest.raises(TypeError, match=r"changes the policy's `keep`, but Full has no such option"):
        curve.check(uds.Full())
    for policy in (uds.UDS(), uds.UDS(count=2), uds.UDS(tokens=100)):
        with pytest.raises(ValueError, match="but UDS was made without one: set the fraction"):
            curve.check(policy)
        with pytest.raises(ValueError, match="but UDS was made without one"):
            curve.policy(policy, 0)


class Foreign:
    """A policy of another package, no dataclass."""

    needs = uds.Needs(logits=False)
    keep = 0.5

    def examine(self, candidates, /):
        return {"length": candidates.lengths()}

    def init(self, features, /):
        return None

    def choose(self, state, features, /, *, groups=None):
        raise NotImplementedError


def test_a_foreign_policy_needs_no_share_unless_it_is_scheduled():
    policy = Foreign()
    assert isinstance(policy, uds.Policy)
    Schedule(start_step=1, every=2).check(policy)
    assert Schedule(start_step=1, every=2).policy(policy, 3) is policy
    with pytest.raises(TypeError, match="but Foreign has no such option"):
        Schedule(curve="linear", steps=2).check(policy)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start_step": -1}, "`start_step` must be a whole number of at least 0, got -1"),
        ({"every": 0}, "`every` must be a whole number of at least 1, got 0"),
        ({"every": 2.0}, "`every` must be a whole number"),
        ({"every": True}, "`every` must be a whole number"),
        ({"curve": 0.25}, "`curve` must be 'constant', 'linear' or 'cosine', got 0.25; the fraction is"),
        ({"curve": "linear"}, "curve='linear' needs `steps`"),
        ({"curve": "cosine", "steps": 0}, "`steps` must be a whole number of at least 1"),
        ({"curve": "linear", "steps": 5, "initial": 0.0}, r"`initial` must be a fraction in \(0, 1\], got 0.0"),
        ({"curve": "linear", "steps": 5, "initial": float("nan")}, "`initial` must be a fraction"),
        ({"steps": 5}, "change nothing with curve='constant'"),
        ({"initial": 0.5}, "change nothing with curve='constant'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        Schedule(**options)


@pytest.mark.parametrize("step", [-1, 1.5, None, True])
def test_steps_are_whole_numbers(step):
    with pytest.raises(ValueError, match="`step` must be a whole number of at least 0"):
        Schedule().policy(uds.Full(), step)


def test_examples_hold():
    assert doctest.testmod(module).failed == 0
