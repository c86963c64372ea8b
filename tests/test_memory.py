"""The ring of chosen sketches, and distances to it."""

from collections import deque

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds


@given(capacity=st.integers(1, 7), pushes=st.lists(st.integers(0, 9), max_size=12))
def test_holds_what_a_deque_holds(backend, capacity, pushes):
    memory = uds.Memory.empty(capacity, 2, like=backend.array(np.zeros(1), "float32"))
    model, number = deque(maxlen=capacity), 0
    for n in pushes:
        rows = np.arange(number, number + n)[:, None] * np.ones((1, 2))
        number += n
        model.extend(rows.tolist())
        memory = memory.push(backend.array(rows, "float32"))
        assert memory.size == len(model) <= capacity
        assert sorted(backend.numpy(memory.filled).tolist()) == sorted(model)


def test_push_leaves_the_old_memory_as_it_is(backend):
    before = uds.Memory.empty(3, 2, like=backend.array(np.zeros(1), "float32"))
    after = before.push(backend.array(np.ones((2, 2)), "float32"))
    assert before.size == 0
    np.testing.assert_array_equal(backend.numpy(before.rows), np.zeros((3, 2)))
    np.testing.assert_array_equal(backend.numpy(after.filled), np.ones((2, 2)))


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 4), rows=st.integers(0, 5), dim=st.integers(1, 6))
def test_diversity_is_the_mean_distance(backend, seed, batch, rows, dim):
    rng = np.random.default_rng(seed)
    z, q = rng.normal(size=(batch, dim)), rng.normal(size=(rows, dim))
    got = uds.diversity(backend.array(z, "float32"), backend.array(q, "float32"))
    np.testing.assert_allclose(backend.numpy(got), reference.mean_distance(z, q), rtol=1e-4, atol=2e-3)


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1e3, 1e3))
def test_shifting_everything_changes_no_distance(backend, seed, shift):
    rng = np.random.default_rng(seed)
    z, q = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
    got = uds.diversity(backend.array(z + shift, "float32"), backend.array(q + shift, "float32"))
    np.testing.assert_allclose(backend.numpy(got), reference.mean_distance(z, q), rtol=2e-3)


def test_tight_clusters_far_from_the_origin_keep_their_distances(backend):
    rng = np.random.default_rng(0)
    centre = 100 * rng.normal(size=1024)
    z, q = centre + 0.01 * rng.normal(size=(4, 1024)), centre + 0.01 * rng.normal(size=(32, 1024))
    z, q = z.astype(np.float32), q.astype(np.float32)
    got = backend.numpy(uds.diversity(backend.array(z), backend.array(q)))
    np.testing.assert_allclose(got, reference.mean_distance(z.astype(float), q.astype(float)), rtol=1e-4)


def test_an_empty_memory_is_no_distance_away(backend):
    z = backend.array(np.ones((3, 2)), "float32")
    np.testing.assert_array_equal(backend.numpy(uds.diversity(z, uds.Memory.empty(4, 2, like=z))), [0, 0, 0])


def test_a_sketch_that_is_not_finite_spoils_no_other(backend):
    z = backend.array(np.array([[np.nan, 0.0], [3.0, 4.0]]), "float32")
    got = backend.numpy(uds.diversity(z, backend.array(np.zeros((1, 2)), "float32")))
    assert np.isnan(got[0])
    assert got[1] == pytest.approx(5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uds.Memory.empty(0, 2, like=np.zeros(1)), "`capacity` must be at least 1"),
        (lambda: uds.Memory.empty(3, 2, like=np.zeros(1)).push(np.ones((1, 3))), r"`rows` must have shape \(n, 2\)"),
        (lambda: uds.diversity(np.ones((2, 3)), np.ones((2, 4))), "do not fit"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
