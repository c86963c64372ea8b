"""The peak of memory."""

import torch

from uds_adapters.lab.system import _STATUS, peak

CPU = torch.device("cpu")


def test_what_is_held_for_a_moment_counts():
    with peak(CPU) as small:
        torch.ones(1000)
    if small.bytes is None:
        assert not _STATUS.exists()  # not Linux
        return
    with peak(CPU) as large:
        held = torch.ones(64 * 2**20)  # 256 MiB
        del held
    assert large.bytes is not None
    assert large.bytes - small.bytes > 200 * 2**20
    with peak(CPU) as after:
        torch.ones(1000)
    assert after.bytes is not None


def test_a_machine_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr("uds_adapters.lab.system._RESET", tmp_path / "none" / "clear_refs")
    with peak(CPU) as found:
        torch.ones(1000)
    assert found.bytes is None
