"""How often the host waits for the device in a whole selecting step, on a second device in Python."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import every_policy
import on_second_device
import second_device
import spawned

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "launches.json"
NAMES = [name for name in every_policy.POLICIES if " " not in name]
NAMES += ["fresh uds", "fresh predicted", "targeted entropy"]
NAMES += [f"{name} in parts of 2" for name in ("uds", "entropy", "maxgrad")]
MORE = {"cascade": 4}  # the shortlist is read before its pass
MORE |= {name: 3 for name in NAMES if "parts" in name}  # the columns in use, by which a batch is divided
# as measured last (`python benchmarks/launches.py --write`), and some for other versions of PyTorch
LAUNCHES = {name: row["launches"] + 10 for name, row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"].items()}

pytestmark = pytest.mark.skipif(not second_device.is_available(), reason="needs devices in Python, of newer PyTorch")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, on_second_device.Step]:
    (result,) = spawned.all_well(spawned.run(on_second_device.steps, 1, tmp_path_factory.mktemp("device"), names=NAMES))
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_step_waits_for_the_device_twice_at_most(found, name):
    """Once after the scoring pass, which is verified, and once in the choice; and no copy to the device waits."""
    step = found[name]
    assert not step.error
    assert sum(step.reads.values()) <= MORE.get(name, 2), step.reads
    assert step.launches <= LAUNCHES.get(
        name, 700 if "parts" in name else 450
    )  # of kernels, beside those of the model's forward pass
    assert step.waiting == {}
    assert step.training == {}
