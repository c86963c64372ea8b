"""Features by a graph of `torch.compile`."""

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.scoring import compiled  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

POLICY = uds.UDS(keep=0.5, memory=8, dim=16, method="polar")


@pytest.fixture
def traced(monkeypatch):
    """Graphs that are traced and run as they are: no C++ compiler is needed."""
    compile_, made = torch.compile, []

    def compiling(function: Any, **options: Any) -> Any:
        from torch._dynamo.testing import CompileCounterWithBackend

        made.append(CompileCounterWithBackend("eager"))
        return compile_(function, backend=made[-1], **options)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compiling)
    yield made
    torch._dynamo.reset()


def picked(*, frozen: bool, policy: uds.Policy = POLICY, **options: Any) -> list[list[int]]:
    select = BatchSelector(tiny.llama(frozen_head=frozen), policy, **options)
    found = []
    for seed, number in enumerate((6, 6, 5, 8)):
        select(tiny.batch(number, seed=seed))
        found.append(select.last_indices)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
@pytest.mark.parametrize("frozen", [True, False])
def test_choices_are_those_without_compilation(traced, frozen):
    assert picked(frozen=frozen, compile=True) == picked(frozen=frozen)
    assert 1 <= traced[0].frame_count <= 3  # the first shape, other numbers of samples, other lengths


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
def test_a_policy_that_derives_nothing_of_the_head_is_compiled(traced):
    policy = uds.Entropy(keep=0.5)
    assert picked(frozen=True, policy=policy, compile=True) == picked(frozen=True, policy=policy)
    assert 1 <= traced[0].frame_count <= 3


def test_what_cannot_be_compiled_is_computed_with_one_warning(monkeypatch):
    def compiling(_: Any, **_options: Any) -> Any:
        def fail(*_: Any) -> None:
            msg = "no compiler\nand more"
            raise RuntimeError(msg)

        return fail

    monkeypatch.setattr(compiled.torch, "compile", compiling)
    with pytest.warns(
        UserWarning, match=r"`compile=True` is without effect: UDS's .* \(RuntimeError: no compiler\)"
    ) as seen:
        found = picked(frozen=True, compile=True)
    assert len(seen) == 1
    assert found == picked(frozen=True)


def test_an_error_of_the_policy_is_its_own(monkeypatch):
    monkeypatch.setattr(compiled.torch, "compile", lambda function, **_: function)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="target"):
            picked(frozen=True, policy=uds.RDS(keep=0.5), compile=True)


def test_without_the_option_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(compiled.torch, "compile", lambda *_, **_options: pytest.fail("compiled"))
    picked(frozen=True)
