"""A small task, made once a test file."""

import pytest

from uds_adapters.lab.demo import scenario
from uds_adapters.lab.training.task import prepare


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=2)
    return prepare(scenario.make(tmp_path_factory.mktemp("task"), sizes=sizes, seed=0), seed=0)
