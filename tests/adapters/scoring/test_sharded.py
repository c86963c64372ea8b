"""Scoring with sharded weights: the picks and gradients of one process that has all of them."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torch.distributed.fsdp")

import loops  # noqa: E402
import spawned  # noqa: E402

import uds_core as uds  # noqa: E402

pytestmark = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards nothing on the CPU"
)


def run(world, folder, job=loops.fsdp, **options) -> list[Any]:
    return spawned.all_well(spawned.run(job, world, folder, **options))


def far(got, expected):
    return float((got - expected).norm() / expected.norm())


CASES = {
    "trains": {},
    "tied": {"tied": True},
    "frozen": {"frozen": True},
    "a group of its own": {"own_group": True},
    "frozen, a group of its own": {"frozen": True, "own_group": True},
    "micro-batches": {"score_batch_size": 2},
    "loss": {"policy": uds.MaxLoss(keep=0.5)},
    "fresh": {"policy": uds.Fresh(uds.MaxLoss(keep=0.5))},
}


@pytest.mark.parametrize("case", CASES)
def test_a_sharded_model_trains_what_one_process_would(tmp_path, case):
    alone = run(1, tmp_path, **CASES[case])[0]
    found = run(2, tmp_path, **CASES[case])
    assert len({one["memory"] for one in found}) == 1
    assert [alone["sharded"], *(one["sharded"] for one in found)] == [False, True, True]
    for one in found:
        assert one["picks"] == alone["picks"]
        for got, expected in zip(one["gradients"], alone["gradients"], strict=True):
            assert far(got, expected) < 1e-6


@pytest.mark.parametrize("score_batch_size", [None, 1])
def test_ranks_with_unequal_batches_make_the_same_number_of_passes(tmp_path, score_batch_size):
    alone = run(1, tmp_path)[0]
    for one in run(2, tmp_path, uneven=True, score_batch_size=score_batch_size):
        assert one["picks"] == alone["picks"]


@pytest.mark.slow
@pytest.mark.parametrize("own_group", [False, True])
def test_a_frozen_head_is_prepared_once_and_never_copied(tmp_path, own_group):
    """Beyond what the pass itself gathers, nothing as large as the head is made: not at first, and not later."""
    vocab = 64 * 2**20 // (4 * 64) + 20_000  # larger than a block
    for one in run(2, tmp_path, vocab=vocab, own_group=own_group, pool=4, steps=3):
        for made in one["made"]:
            assert set(made) <= {"aten.empty.memory_format"}  # FSDP's own


def test_what_was_derived_of_a_head_serves_without_its_weight():
    torch.manual_seed(0)
    weight, hidden, bias = torch.randn(97, 8), torch.randn(2, 5, 8), torch.randn(97)
    policy = uds.UDS(keep=0.5, dim=16, centre="row")
    head = uds.Head(weight, bias, 0.5)
    expected = policy.examine(uds.Candidates(head(hidden)))
    moved = head.moved(weight.new_zeros(()).expand(97, 8), bias)
    found = policy.examine(uds.Candidates(moved(hidden)))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert moved.moved(weight, bias).centred().factor is head.centred().factor


def test_a_whole_model_is_not_sharded():
    from uds_adapters.scoring.models import is_sharded

    assert not is_sharded(loops.tiny.llama())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of DeepSpeed's own
@pytest.mark.parametrize("case", ["trains", "tied", "frozen"])
def test_zero3_trains_what_one_process_would(tmp_path, case):
    """The first run builds an extension of DeepSpeed, which takes two minutes."""
    pytest.importorskip("deepspeed", reason="needs DeepSpeed, which is not installed")
    alone = run(1, tmp_path, **CASES[case])[0]
    for one in run(2, tmp_path, loops.zero3, limit=400, **CASES[case]):
        assert one["picks"] == alone["picks"]
        assert one["sharded"]
        for got, expected in zip(one["gradients"], alone["gradients"], strict=True):
            assert far(got, expected) < 1e-6
