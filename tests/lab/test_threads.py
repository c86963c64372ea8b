"""Threads are limited for a while."""

import torch

from uds_adapters.lab.system import threads


def test_limited_and_restored():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
