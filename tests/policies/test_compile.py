"""`torch.compile` of `examine`: the same values, no graph breaks, and no graph for each length of a batch."""

from typing import Any

import pytest
from conftest import Backend
from every_policy import POLICIES
from pools import candidates, samples

torch = pytest.importorskip("torch")

import array_api_compat.torch  # noqa: E402
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_core._array import constant_in_graphs  # noqa: E402

BACKEND = Backend("torch", array_api_compat.torch)
SHAPES = ((6, 7), (5, 9), (4, 12))
# forms that differ in their choice alone: each graph takes seconds
ALIKE = {"uds rank", "uds greedy", "uds in batch", "uds reservoir", "uds drawn", "selectivebackprop history"}
ALIKE |= {"lossema", "lossdrop trained", "lossema trained", "longest", "shortest"}
MORE = {"uds polar": uds.UDS(keep=0.5, memory=8, dim=16, method="polar")}  # as on a GPU
NAMES = [name for name in (*POLICIES, *MORE) if name not in ALIKE]
NOT = {
    "rholoss ledger": "looks numbers up by the samples' identities, on the host",
    "reference": "is for comparisons; its constants are bytes, which the compiler does not read",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.skipif(name in NOT, reason=NOT.get(name, ""))) for name in NAMES]
)
def test_examine_compiles_without_graph_breaks(name):
    """Through a prepared head, as in training; for the polar iteration, too, which GPUs use."""
    compiled(name, SHAPES[:1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["entropy", "uds", "uds polar"])
def test_a_second_graph_serves_all_further_shapes(name):
    assert compiled(name, SHAPES) == 2


def compiled(name: str, shapes: tuple[tuple[int, int], ...]) -> int:
    """Compare features of batches of some shapes, and return the number of graphs."""
    policy, backend = {**POLICIES, **MORE}[name], CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    examine = torch.compile(policy.examine, fullgraph=True, backend=backend)
    for seed, (batch, time) in enumerate(shapes):
        given = candidates(BACKEND, samples(seed, batch=batch, time=time))
        expected = policy.examine(given)  # prepares the head
        got = examine(given)
        assert set(got) == set(expected)
        for feature, values in expected.items():
            torch.testing.assert_close(got[feature], values, rtol=1e-4, atol=1e-4)
    return backend.frame_count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sketch", ["paired", "shifted", "fourier"])
def test_a_head_that_is_not_prepared_compiles(sketch):
    """Its side of the sketch is part of the graph, with the constants that NumPy draws."""
    policy, weight = uds.DiversityOnly(dim=16, sketch=sketch), torch.randn(40, 5)
    hidden = torch.randn(3, 7, 5)

    def examine(hidden: Any) -> Any:
        return policy.examine(uds.Candidates(uds.Head(weight)(hidden)))["sketch"]

    torch._dynamo.reset()
    got = torch.compile(examine, fullgraph=True, backend="aot_eager")(hidden)
    torch.testing.assert_close(got, examine(hidden), rtol=1e-4, atol=1e-4)


def test_the_mark_is_that_of_torch():
    def drawn() -> None: ...

    def known() -> None: ...

    assert vars(constant_in_graphs(drawn)) == vars(torch.compiler.assume_constant_result(known))
