"""`torch.compile` of `examine`, but of sketches: the same values, and no graph breaks, so that a GPU may fuse it."""

from typing import Any

import pytest
from every_policy import POLICIES
from pools import WEIGHT, samples

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402

NAMES = ("nuclearonly", "frobenius", "entropy", "maxloss", "quadrants")  # sketches draw constants with NumPy

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_examine_compiles_without_graph_breaks(name):
    """Through a prepared head, as in training with a frozen one; fused by the backend that only traces and runs."""
    pool, policy = samples(0), POLICIES[name]
    head = uds.Head(torch.tensor(WEIGHT, dtype=torch.float32))
    hidden, mask, labels = torch.tensor(pool.hidden).float(), torch.tensor(pool.mask), torch.tensor(pool.labels)

    def examine(hidden: Any, mask: Any, labels: Any) -> Any:
        return dict(policy.examine(uds.Candidates(head(hidden), mask=mask, labels=labels)))

    expected = examine(hidden, mask, labels)  # prepares the head
    got = torch.compile(examine, fullgraph=True, backend="aot_eager")(hidden, mask, labels)
    assert set(got) == set(expected)
    for feature, values in expected.items():
        torch.testing.assert_close(got[feature], values, rtol=1e-4, atol=1e-4)
