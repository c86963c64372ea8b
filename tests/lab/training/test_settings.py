"""Options are checked before anything is loaded."""

import pytest

from uds_adapters.lab.errors import LabError
from uds_adapters.lab.training.settings import Settings


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 0.0},
        {"keep": 1.5},
        {"batch_size": 0},
        {"steps": 0},
        {"epochs": 0.0},
        {"learning_rate": -1.0},
        {"eval_every": 0},
        {"threads": 0},
    ],
    ids=str,
)
def test_out_of_range(options):
    (name,) = options
    with pytest.raises(LabError, match=f"`{name}`"):
        Settings(**options)


def test_steps_come_from_epochs_unless_given():
    assert Settings(batch_size=8, epochs=2).total_steps(83) == 20
    assert Settings(batch_size=8, epochs=2, steps=3).total_steps(83) == 3
    with pytest.raises(LabError, match="`batch_size` counts candidates"):
        Settings(batch_size=8).total_steps(7)


def test_about_eight_evaluations_a_run():
    assert Settings().evaluation_steps(80) == 10
    assert Settings().evaluation_steps(3) == 1
    assert Settings(eval_every=7).evaluation_steps(80) == 7
