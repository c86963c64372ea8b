"""Memory of models that are no longer used, given back before another is loaded."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from uds_adapters.lab.free_memory import free_memory  # noqa: E402


class Trainer:
    """Refers to itself by way of what it holds, as trainers do."""

    def __init__(self, model):
        self.model, self.own = model, self


def test_a_model_whose_trainer_refers_to_itself_is_freed():
    trainer = Trainer(torch.nn.Linear(3, 3))
    freed = weakref.ref(trainer.model)
    gc.disable()
    try:
        del trainer
        assert freed() is not None
        free_memory()
        assert freed() is None
    finally:
        gc.enable()


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and trims the heap of glibc")
def test_what_lies_between_other_allocations_is_given_back(monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    every = [torch.ones(2**14) for _ in range(2000)]  # 64 KiB each, below the threshold of a mapping of its own
    few = every[::50]
    before = resident()
    del every
    free_memory()
    assert before - resident() > 100 * 2**20
    assert all(float(x[0]) == 1.0 for x in few)


WALK = """
import torch
from pathlib import Path
from uds_adapters.lab.free_memory import map_large_blocks
if {mapped}:
    map_large_blocks()
torch.ones(2**21)  # glibc raises its threshold to the largest block that was freed
kept = []
for _ in range(300):
    block = torch.ones(2**18)
    kept.append(block[:2**13] * 2)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_walk_in_large_blocks_leaves_its_results_alone():
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    commands = [[sys.executable, "-c", WALK.format(mapped=mapped)] for mapped in (True, False)]
    kib = [int(subprocess.check_output(command, env=plain)) for command in commands]
    assert kib[0] < kib[1] + 2**10
