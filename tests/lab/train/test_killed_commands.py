"""`uds train`, killed at random: `--resume` ends it bit for bit as if it had not been."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import killed
import spawned

from uds_adapters import audit
from uds_adapters.lab.demo import scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Options of a run, its folder, and its counts where nothing killed it."""
    folder = tmp_path_factory.mktemp("train")
    sizes = scenario.Sizes(train=48, heldout=8, texts=30, pretraining_steps=1)
    (folder / "data").mkdir()
    made = scenario.make(folder / "data", sizes=sizes, seed=0)
    options = [
        *("--model", made.model, "--data", made.data, "--holdout", 0.25, "--batch-size", 8, "--steps", 6),
        *("--keep", 0.5, "--threads", 1, "--save-every", 2, "--checkpoints", 2),
    ]
    (counts,) = run(folder, *options)
    return options, folder / "run", counts


def run(folder: Path, *options: Any, resume: bool = False, kill: Any = None) -> list[Any]:
    output = folder / "run"
    given = ["--resume", output] if resume else [*options, "--output", output, "--overwrite"]
    found = spawned.run(killed.command, 1, folder, arguments=["train", *map(str, given)], kill=kill)
    for result in spawned.all_well(found) if kill is None else []:
        assert result["code"] == 0, result["output"]
    return found


@pytest.mark.parametrize("number", range(5))
def test_a_killed_command_is_resumed(straight, tmp_path, number):
    options, expected, counts = straight
    rng = random.Random(number)
    for kind in ("file", rng.choice(["file", "seconds"])):
        limit = counts[kind]
        at = rng.uniform(0, limit) if kind == "seconds" else rng.randint(1, int(limit))
        run(tmp_path, *options, resume=(tmp_path / "run" / "config.yaml").exists(), kill=(kind, at))
    run(tmp_path, *options, resume=(tmp_path / "run" / "config.yaml").exists())
    for name in ("model/model.safetensors", "model/config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (expected / name).read_bytes(), name
    rows, others = (list(audit.read(path / "audit.jsonl")) for path in (tmp_path / "run", expected))
    assert rows == others
    results = [json.loads((path / "training.json").read_text()) for path in (tmp_path / "run", expected)]
    for name in ("losses", "samples", "steps"):
        assert results[0][name] == results[1][name]
