"""States as flat dicts of arrays, and back."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import uds_core as uds


class Inner(NamedTuple):
    rows: Any
    size: int


class Outer(NamedTuple):
    inner: Inner
    step: int


def test_round_trip(backend):
    state = Outer(Inner(backend.array([[1.0, 2.0]], "float32"), 3), 7)
    arrays = uds.flatten(state)
    assert list(arrays) == ["inner.rows", "inner.size", "step"]
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    template = Outer(Inner(backend.array([[0.0, 0.0]], "float32"), 0), 0)
    back = uds.restore(template, arrays)
    assert (back.step, back.inner.size) == (7, 3)
    assert type(back.inner.size) is int
    np.testing.assert_array_equal(backend.numpy(back.inner.rows), [[1, 2]])
    assert back.inner.rows.dtype == template.inner.rows.dtype


def test_the_restored_state_shares_no_memory_with_the_arrays():
    arrays = uds.flatten(Inner(np.zeros((1, 2), np.float32), 0))
    back = uds.restore(Inner(np.ones((1, 2), np.float32), 0), arrays)
    arrays["rows"][:] = 5
    assert (back.rows == 0).all()


def test_no_state_yet_is_an_empty_dict():
    assert uds.flatten(None) == {}
    assert uds.flatten(uds.Full().init({})) == {}


def test_what_has_no_rows_yet_grows():
    template = Inner(np.zeros((0, 2)), 0)
    back = uds.restore(template, {"rows": np.ones((3, 2)), "size": np.asarray(3)})
    assert back.rows.shape == (3, 2)
    for rows in (np.ones((3, 1)), np.ones(3), np.ones((3, 2, 1))):
        with pytest.raises(ValueError, match="'rows' has shape"):
            uds.restore(template, {"rows": rows, "size": np.asarray(3)})


def test_survives_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    policy = uds.UDS(keep=1.0, memory=4, dim=8)
    features = policy.examine(uds.Candidates(np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)))
    _, state = policy.choose(None, features)
    safetensors.save_file(uds.flatten(state), tmp_path / "state.safetensors")
    back = uds.restore(policy.init(features), safetensors.load_file(tmp_path / "state.safetensors"))
    for name, array in uds.flatten(state).items():
        np.testing.assert_array_equal(uds.flatten(back)[name], array)


def test_what_does_not_fit_is_named():
    state = Inner(np.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match=r"missing \['size'\], unknown \['sise'\]"):
        uds.restore(state, {"rows": np.zeros((1, 2)), "sise": np.asarray(0)})
    with pytest.raises(ValueError, match="'rows' is int64, not float64: it is damaged"):
        uds.restore(state, {"rows": np.zeros((1, 2), np.int64), "size": np.asarray(0)})
    memory = uds.Memory.empty(3, 2, like=np.zeros(1))
    for size, cursor in ((4, 0), (-1, 0), (2, 3)):
        damaged = {"rows": np.zeros((3, 2)), "size": np.asarray(size), "cursor": np.asarray(cursor)}
        with pytest.raises(ValueError, match="which cannot be: the file is damaged"):
            uds.restore(memory, damaged)
    reservoir = uds.Reservoir.empty(3, 2, like=np.zeros(1), seed=1)
    with pytest.raises(ValueError, match="filled with `seed`=2, this policy has 1"):
        uds.restore(reservoir, uds.flatten(reservoir._replace(seed=2)))
    with pytest.raises(ValueError, match=r"'rows' has shape \(2, 2\), this policy expects \(1, 2\)"):
        uds.restore(state, {"rows": np.zeros((2, 2)), "size": np.asarray(0)})
