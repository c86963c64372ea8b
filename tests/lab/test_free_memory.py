"""Memory of models that are no longer used, given back before another is loaded."""

import gc
import os
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
