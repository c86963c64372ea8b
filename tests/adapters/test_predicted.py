"""Predicted scores in loops and trainers: every process learns the same, and every form of batch is measured."""

from typing import Any

import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import spawned  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

STEPS, CANDIDATES = 6, 8


def policy() -> Any:
    return uds.Predicted(uds.UDS(memory=8, dim=16), count=4, warmup=2, explore=0.0)


def steps_of(rank=0, world=1):
    """Choices of some steps without an optimizer, of this rank's part of each batch; and the state after them."""
    model = tiny.llama()
    selector = BatchSelector(model, policy(), id_field="id", ranks="global" if world > 1 else "rank")
    chosen = []
    for step in range(STEPS):
        some = tiny.examples(CANDIDATES, seed=step)
        mine = slice(rank * CANDIDATES // world, (rank + 1) * CANDIDATES // world)
        batch = {name: column[mine] for name, column in tiny.collate(some).items()}
        batch["id"] = torch.arange(CANDIDATES)[mine]
        model(**selector(batch)).loss.backward()
        assert selector.last is not None
        chosen.append(sorted(selector.last.indices.tolist()))
    state = {name: tensor.numpy() for name, tensor in selector.state_dict().items()}
    return chosen, {name: state[name] for name in state if "learner" in name}


def job(folder):
    import torch.distributed as dist

    return steps_of(dist.get_rank(), dist.get_world_size())


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_learn_and_choose_what_one_process_does(tmp_path, world):
    chosen, state = steps_of()
    assert len({tuple(one) for one in chosen}) > 1
    for theirs, learnt in spawned.all_well(spawned.run(job, world, tmp_path)):
        assert theirs == chosen
        for name, array in state.items():
            np.testing.assert_allclose(learnt[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_log_has_the_correlation_once_it_is_known():
    model = tiny.llama()
    selector = BatchSelector(model, uds.Predicted("maxloss", count=4, warmup=12, least_correlation=-1.0))
    for step in range(11):
        model(**selector(tiny.batch(8, seed=step))).loss.backward()
        assert ("predicted_correlation" in selector.metrics) is (step >= 8)
        assert "predicted_mean" in selector.metrics
