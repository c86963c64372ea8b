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


def test_short_ways_to_common_results(backend):
    """Those that start fewer kernels of PyTorch, against NumPy."""
    rng = np.random.default_rng(0)
    x, index = rng.normal(size=(3, 5)).astype(np.float32), np.asarray([4, 0, 0], dtype=np.int32)
    here, place = backend.array(x, "float32"), backend.array(index)
    np.testing.assert_array_equal(backend.numpy(_array.take(here, place, axis=1)), x[:, index])
    along = np.stack([index, index + 0, index // 2])
    found = backend.numpy(_array.take_along_rows(here, backend.array(along)))
    np.testing.assert_array_equal(found, np.take_along_axis(x, along.astype(np.int64), axis=1))
    counts = backend.array([0.0, 1.0, 3.0], "float32")
    assert backend.numpy(_array.at_least_one(counts)).tolist() == [1, 1, 3]
    odd = backend.array([0.0, np.nan, np.inf, -np.inf, -1e38], "float32")
    assert backend.numpy(_array.is_finite(odd)).tolist() == [True, False, False, False, True]
    stack = rng.normal(size=(2, 4, 4)).astype(np.float32)
    base, left = backend.array(x[:2, :4, None] + stack, "float32"), backend.array(stack, "float32")
    got = backend.numpy(_array.multiply_add(base, left, left, scale=0.5, factor=-2.0))
    expected = 0.5 * backend.numpy(base) - 2 * (stack @ stack)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
