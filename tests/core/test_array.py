"""Where array libraries differ."""

import numpy as np
import pytest

from uds_core import _array


def test_constants_come_from_numpy_and_share_no_memory(backend):
    values = np.arange(4, dtype=np.int32)
    made = _array.constant(values, like=backend.array([0.0], "float32"))
    values[:] = 0
    np.testing.assert_array_equal(backend.numpy(made), [0, 1, 2, 3])
    like = backend.array([0.0], "float32")
    assert _array.constant(np.ones(2), like=like, dtype=like.dtype).dtype == like.dtype
    assert _array.device(made) == _array.device(like)


def test_to_numpy_brings_any_array_home(backend):
    home = _array.to_numpy(backend.array([1.0, 2.0], "float32"))
    assert type(home) is np.ndarray
    np.testing.assert_array_equal(home, [1, 2])


def test_accumulation_is_in_float64_where_the_device_has_it(backend):
    expected = "float64" if "float64" in backend.floats else "float32"
    assert str(_array.accumulation_dtype(backend.array([0.0], "float32"))).find(expected) >= 0


def test_widening_leaves_full_floats_and_refuses_numbers_that_are_none(backend):
    x = backend.array([1.0], "float32")
    assert _array.widen(x).dtype == x.dtype
    with pytest.raises(TypeError, match="expected floating-point numbers"):
        _array.widen(backend.array([1], "int32"))


def test_qr_triangle_has_the_products_of_the_columns(backend):
    x = np.random.default_rng(0).normal(size=(9, 4))
    triangle = backend.numpy(_array.qr_triangle(backend.array(x, "float32")))
    assert triangle.shape == (4, 4)
    np.testing.assert_allclose(triangle.T @ triangle, x.T @ x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(triangle, np.triu(triangle))


def test_the_smallest_of_each_row_are_those_of_a_sort(backend):
    x = np.random.default_rng(0).normal(size=(5, 9))
    x[1, 3], x[2, :] = np.inf, np.nan
    for number in (1, 4, 9):
        found = np.sort(backend.numpy(_array.smallest(backend.array(x, "float32"), number)), axis=1)
        np.testing.assert_array_equal(found, np.sort(x.astype(np.float32), axis=1)[:, :number])


def test_only_what_jax_traces_is_traced(backend):
    assert not _array.is_traced(backend.array([0.0], "float32"))
    jax = pytest.importorskip("jax")
    seen = []
    jax.jit(lambda x: seen.append(_array.is_traced(x)) or x)(jax.numpy.zeros(2))
    assert seen == [True]
