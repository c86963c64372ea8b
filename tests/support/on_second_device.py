"""Policies and selecting steps on a second device: what a process of its own finds out about them."""

import dataclasses
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
    least = float(np.finfo(np.float32).tiny)
    return float((got - expected).abs().nan_to_num(0.0).max()) / max(size, least) if size else 0.0


class Step(NamedTuple):
    """A selecting step on the device, with the model's own forward pass left out."""

    reads: dict[str, int]
    waiting: dict[str, int]  # copies to the device that the host waits for
    launches: int
    training: dict[str, int]  # reads and waiting copies of the library in the training pass
    error: str = ""


def steps(_folder: Any, *, names: list[str]) -> dict[str, Step]:
    """Select and train some batches with each policy; return what the last step did."""
    second_device.install()
    warnings.simplefilter("ignore")
    found = {}
    for name in names:
        policy, _, size = name.partition(" in parts of ")
        try:
            found[name] = last_step(every_policy.POLICIES[policy], score_batch_size=int(size) if size else None)
        except Exception as error:
            found[name] = Step({}, {}, 0, {}, error=f"{type(error).__name__}: {error}")
    return found


def last_step(policy: Any, *, number: int = 3, batch: int = 8, score_batch_size: int | None = None) -> Step:
    """Return what the last of some selecting steps did, and the training pass after it."""
    import functools

    import tiny

    import uds_core as uds
    from uds_adapters.scoring.validation import ValidationScorer
    from uds_adapters.torch import BatchSelector

    model: Any = second_device.to_device(tiny.llama(frozen_head=True))
    options: dict[str, Any] = {"id_field": "id", "score_batch_size": score_batch_size}
    if isinstance(policy, uds.GREATS):
        options["scorer"] = functools.partial(ValidationScorer, validation=_on_device(tiny.batch(3, seed=9)))
    if isinstance(policy, uds.Targeted):
        policy = dataclasses.replace(policy, target=uds.ngram_counts(torch.arange(64)[None, :]))
    if isinstance(policy, uds.RDS):
        policy = dataclasses.replace(policy, target=torch.ones(3, 32))
    if hasattr(policy, "warmup"):
        policy = dataclasses.replace(policy, warmup=1)
    select = BatchSelector(model, policy, **options)
    found = Step({}, {}, 0, {})
    for step in range(number):
        given = _on_device(tiny.batch(batch, seed=step))
        beside = {"id": torch.arange(batch), "reference_loss": torch.ones(batch)}
        needed = {"id", *policy.needs.columns}
        given |= {name: x for name, x in beside.items() if name in needed}
        with second_device.recorded() as record, record.apart(model.model):
            kept = select(given)
        kept = {name: x for name, x in kept.items() if name not in (*beside, "loss_weights")}
        select._returned = None  # the weights are left out on purpose
        with second_device.recorded() as trained, trained.apart(model.model):
            model(**kept).loss.backward()
        ours = {line: n for line, n in trained.lines("read", "waiting upload").items() if not line.startswith(" ")}
        found = Step(record.lines("read"), record.lines("waiting upload"), record.count("launch"), ours)
    return found


def _on_device(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.to(second_device.NAME) for name, x in batch.items()}
