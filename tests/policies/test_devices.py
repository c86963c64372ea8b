"""No policy reads values in `examine`, or makes an array on another device; a choice waits for the device once."""

import warnings
from typing import Any

import numpy as np
import pytest
from conftest import Backend
from every_policy import POLICIES
from pools import candidates, samples

torch = pytest.importorskip("torch")
import array_api_compat.torch  # noqa: E402
import on_second_device  # noqa: E402
import second_device  # noqa: E402
import spawned  # noqa: E402

import uds_core as uds  # noqa: E402

META = Backend("torch:meta", array_api_compat.torch, "meta")
needs_device = pytest.mark.skipif(not second_device.is_available(), reason="needs devices in Python, of newer PyTorch")
every_policy = pytest.mark.parametrize("name", POLICIES)


@every_policy
def test_examine_needs_no_values(name):
    """Tensors of the `meta` device have none."""
    given = candidates(META, samples(0))
    given.ids = samples(0).ids  # the adapters have them on the host
    expected = POLICIES[name].examine(candidates(Backend("torch", array_api_compat.torch), samples(0)))
    features = POLICIES[name].examine(given)
    assert {name: (x.device.type, x.shape, x.dtype) for name, x in features.items()} == {
        name: ("meta", x.shape, x.dtype) for name, x in expected.items()
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, on_second_device.Found]:
    (result,) = spawned.all_well(
        spawned.run(on_second_device.policies, 1, tmp_path_factory.mktemp("device"), names=list(POLICIES))
    )
    return result


@needs_device
@every_policy
def test_a_policy_on_a_second_device(found, name):
    """Without reads in `examine`, with at most one in `choose`, and with the choices of the CPU."""
    of = found[name]
    assert not of.error
    assert of.examine == {}
    assert of.reads <= 1, of.choose
    assert not any("learn" in line or "waiting" in line for line in of.choose), of.choose
    assert of.difference < 1e-4
    assert of.alike


def test_to_host_returns_what_was_given(backend):
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {
        "numbers": rng.normal(size=(3, 4)).astype(np.float32),
        "flags": rng.random(5) < 0.5,
        "one": np.asarray(7, dtype=np.int32),
        "none": np.zeros((0, 2), dtype=np.float32),
    }
    host = uds.to_host({name: backend.array(x) for name, x in given.items()})
    assert list(host) == list(given)
    for name, x in given.items():
        assert host[name].dtype == x.dtype
        np.testing.assert_array_equal(host[name], x)


def test_to_host_widens_half_floats():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        host = uds.to_host({"half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "whole": torch.arange(2)})
    assert host["half"].dtype == np.float32
    assert host["half"].tolist() == [1.5, -2.0]
