"""Policies and selecting steps on a second device: what a process of its own finds out about them."""

import warnings
from typing import Any, NamedTuple

import every_policy
import numpy as np
import second_device
import torch


class Found(NamedTuple):
    """What a policy did on the device: the lines that read, or made the host wait for a copy to the device."""

    examine: dict[str, int]
    choose: dict[str, int]  # of the choice with the most reads
    reads: int  # of that choice
    difference: float  # of the features, from those on the CPU, relative to the largest
    alike: bool  # whether the choices were those on the CPU
    error: str = ""


def policies(_folder: Any, *, names: list[str]) -> dict[str, Found]:
    """Examine and choose on the device and on the CPU."""
    second_device.install()
    warnings.simplefilter("error")
    found = {}
    for name in names:
        try:
            found[name] = _followed(every_policy.POLICIES[name])
        except Exception as error:
            found[name] = Found({}, {}, 0, 0.0, alike=False, error=f"{type(error).__name__}: {error}")
    return found


def _followed(policy: Any) -> Found:
    import array_api_compat.torch
    from conftest import Backend
    from pools import samples

    here = Backend("torch:second", array_api_compat.torch, second_device.NAME)
    host = Backend("torch", array_api_compat.torch)
    examined, chosen, reads, difference, alike = {}, {}, 0, 0.0, True
    state, expected_state = None, None
    for step in range(4):
        pool = samples(step)
        given, expected = (_candidates(backend, pool) for backend in (here, host))
        with second_device.recorded() as record:
            features = policy.examine(given)
        examined |= record.lines("read", "waiting upload")
        expected = policy.examine(expected)
        difference = max([difference, *(_difference(features[name].cpu(), expected[name]) for name in expected)])
        with second_device.recorded() as record:
            selection, state = policy.choose(state, features)
            selection.on_host()
        if record.count("read") >= reads:
            reads, chosen = record.count("read"), record.lines("read", "waiting upload")
        other, expected_state = policy.choose(expected_state, expected)
        alike &= selection.indices.tolist() == other.indices.tolist() == selection.on_host().indices.tolist()
        alike &= all(x.device.type == second_device.NAME for x in (selection.indices, selection.scores))
        alike &= bool(torch.allclose(selection.scores.cpu(), other.scores, rtol=1e-3, atol=1e-3, equal_nan=True))
        if policy.needs.training_pass and policy.pending(state):
            exact = torch.linspace(1, 2, policy.pending(state))
            with second_device.recorded() as record:
                state = policy.learn(state, exact)
            chosen |= {f"learn: {line}": number for line, number in record.lines("read", "waiting upload").items()}
            expected_state = policy.learn(expected_state, exact)
    return Found(examined, chosen, reads, difference, alike)


def _candidates(backend: Any, pool: Any) -> Any:
    from pools import candidates

    given = candidates(backend, pool)
    given.ids = pool.ids  # the adapters have them on the host
    return given


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    got, expected = got.double(), expected.double()
    assert torch.equal(got.isfinite(), expected.isfinite())
    size = float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max()) if expected.numel() else 1.0
    return float((got - expected).abs().nan_to_num(0.0).max()) / max(size, np.finfo(np.float32).tiny) if size else 0.0
