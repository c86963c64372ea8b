"""The learner: equal to a ridge regression that is fitted anew to all labels, whatever their order and scale."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds


def steps_of(seed, sizes, width, *, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=width)
    found = []
    for size in sizes:
        x = rng.normal(size=(size, width))
        y = x @ truth + 0.1 * rng.normal(size=size)
        y[rng.random(size) < 0.1] = np.nan
        found.append((scale * x + shift, y))
    return found, scale * rng.normal(size=(7, width)) + shift


def learnt(backend, learner, steps, features):
    state = learner.init(backend.array(features))
    for x, y in steps:
        state = learner.learn(state, backend.array(x), backend.array(y))
    return state


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(0, 6), max_size=6),
    width=st.sampled_from([0, 1, 3, 12]),
    forget=st.sampled_from([0.5, 0.98, 1.0]),
    penalty=st.sampled_from([0.01, 1.0]),
    inertia=st.sampled_from([0.0, 0.8, 1.0]),
)
def test_equals_a_regression_fitted_anew(backend, seed, sizes, width, forget, penalty, inertia):
    steps, features = steps_of(seed, sizes, width, shift=3.0)
    learner = uds.Learner(forget=forget, penalty=penalty, inertia=inertia)
    got = backend.numpy(learner.predict(learnt(backend, learner, steps, features), backend.array(features)))
    expected = reference.ridge(steps, features, forget=forget, penalty=penalty, inertia=inertia)
    single = backend.array(features).dtype != backend.array(np.zeros(1), None).dtype or "float64" not in backend.floats
    np.testing.assert_allclose(got, expected, rtol=0, atol=(5e-3 if single else 1e-8) * (1 + np.abs(expected).max()))


@pytest.mark.parametrize(("scale", "shift"), [(1e-4, 0.0), (1e4, 0.0), (1.0, 100.0)])
def test_units_of_the_features_do_not_matter(scale, shift):
    plain, features = steps_of(3, [20, 20], 4)
    other = [(scale * x + shift, y) for x, y in plain]
    learner = uds.Learner()
    expected = reference.ridge(plain, features, forget=0.98, penalty=learner.penalty, inertia=learner.inertia)
    state = learner.init(features)
    for x, y in other:
        state = learner.learn(state, x, y)
    np.testing.assert_allclose(learner.predict(state, scale * features + shift), expected, rtol=1e-6, atol=1e-6)


def test_before_the_first_label_all_are_alike_and_nothing_is_forgotten_without_labels(backend):
    learner, x = uds.Learner(forget=0.5), backend.array(np.ones((3, 2)))
    state = learner.init(x)
    assert (backend.numpy(learner.predict(state, x)) == 0).all()
    state = learner.learn(state, x, backend.array(np.array([1.0, 2.0, 3.0])))
    again = learner.learn(state, x, backend.array(np.full(3, np.nan)))
    again = learner.learn(again, backend.array(np.zeros((0, 2))), backend.array(np.zeros(0)))
    for before, after in zip(state, again, strict=True):
        np.testing.assert_array_equal(backend.numpy(before), backend.numpy(after))


def test_a_constant_feature_teaches_nothing(backend):
    steps, features = steps_of(1, [10, 10], 3)
    constant = [(np.concatenate([x, np.full((len(x), 1), 0.1)], axis=1), y) for x, y in steps]
    learner = uds.Learner()
    plain = backend.numpy(learner.predict(learnt(backend, learner, steps, features), backend.array(features)))
    features = np.concatenate([features, np.full((7, 1), 50.0)], axis=1)
    got = backend.numpy(learner.predict(learnt(backend, learner, constant, features), backend.array(features)))
    np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-4)


def test_what_is_not_finite_teaches_nothing_and_is_predicted_as_nan(backend):
    steps, features = steps_of(2, [8], 2)
    learner = uds.Learner()
    state = learnt(backend, learner, steps, features)
    spoilt = np.array([[np.nan, 1.0], [np.inf, 1.0], [0.5, 0.5]])
    same = learner.learn(state, backend.array(spoilt[:2]), backend.array(np.ones(2)))
    np.testing.assert_array_equal(backend.numpy(same.second), backend.numpy(state.second))
    got = backend.numpy(learner.predict(state, backend.array(spoilt)))
    assert not np.isfinite(got[:2]).any()
    assert np.isfinite(got[2])


def test_a_saved_state_goes_on_bit_for_bit(backend):
    steps, features = steps_of(4, [5, 5, 5], 3)
    learner = uds.Learner()
    state = learnt(backend, learner, steps[:2], features)
    restored = uds.restore(learner.init(backend.array(features)), uds.flatten(state))
    for one in (state, restored):
        assert type(one) is type(state)
    after = [learner.learn(one, *map(backend.array, steps[2])) for one in (state, restored)]
    got = [backend.numpy(learner.predict(one, backend.array(features))) for one in after]
    np.testing.assert_array_equal(*got)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uds.Learner(forget=0.0), r"`forget` must be in \(0, 1\]"),
        (lambda: uds.Learner(penalty=0.0), "`penalty` must be a positive number"),
        (lambda: uds.Learner(inertia=1.5), r"`inertia` must be in \[0, 1\]"),
        (lambda: uds.Learner().predict(uds.Learner().init(np.ones((1, 2))), np.ones((1, 3))), "with a width of 2"),
        (
            lambda: uds.Learner().learn(uds.Learner().init(np.ones((1, 2))), np.ones((1, 2)), np.ones(2)),
            "`labels` must have one number for each",
        ),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_features_are_floating_point_numbers_of_two_axes():
    learner = uds.Learner()
    state = learner.init(np.ones((1, 2)))
    for call in (learner.init, lambda x: learner.learn(state, x, np.ones(1)), lambda x: learner.predict(state, x)):
        with pytest.raises(TypeError, match="`features` must hold floating-point numbers"):
            call(np.ones((1, 2), int))
        with pytest.raises(ValueError, match="`features` must have shape"):
            call(np.ones(2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_are_widened(dtype):
    """A prediction may lie beyond what half floats hold."""
    torch = pytest.importorskip("torch")
    features, labels = torch.eye(3, dtype=getattr(torch, dtype)), torch.tensor([1e6, 2e6, 3e6])
    learner = uds.Learner(penalty=1e-6)
    got = learner.predict(learner.learn(learner.init(features), features, labels), features)
    assert got.dtype == torch.float32
    assert torch.allclose(got, labels, rtol=1e-3)
