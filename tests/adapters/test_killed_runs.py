"""Runs that are killed at random, twice each, end bit for bit as if they had not been."""

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pyarrow")

import killed  # noqa: E402
import spawned  # noqa: E402

from uds_adapters import audit, checkpoints  # noqa: E402
from uds_adapters.trainer_checkpoints import damage, steps  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL"),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Runs that nothing killed, by number of processes and form of the audit: folder, and counts of each process."""
    made: dict[tuple[int, str], tuple[Path, list[dict[str, float]]]] = {}

    def run(world: int, form: str) -> tuple[Path, list[dict[str, float]]]:
        if (world, form) not in made:
            folder = tmp_path_factory.mktemp("straight")
            found = spawned.all_well(spawned.run(killed.trainer, world, folder, audit=form))
            made[world, form] = folder / "run", found
        return made[world, form]

    return run


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_ends_as_if_it_had_not_been(straight, tmp_path, world, form, number):
    """Killed within `finish_part`, at any change of a file, or at any time; one process, or all of them."""
    expected, counts = straight(world, form)
    rng = random.Random(f"{world} {form} {number}")
    kinds = ["part" if number < 3 else "file", rng.choice(["file", "seconds"])]
    deaths = 0
    for kind in kinds:
        rank = rng.randrange(world)
        limit = counts[rank][kind]
        at = rng.uniform(0, limit) if kind == "seconds" else rng.randint(1, int(limit))
        if is_finished(tmp_path / "run", world):
            break
        found = run(world, tmp_path, audit=form, kill=(kind, at), rank=rank, together=rng.random() < 0.5)
        assert all(result is None or isinstance(result, (dict, Exception)) for result in found)
        deaths += None in found
    assert deaths
    if not is_finished(tmp_path / "run", world):
        spawned.all_well(run(world, tmp_path, audit=form))
    assert is_finished(tmp_path / "run", world)
    same_run(tmp_path / "run", expected, world, form)


def run(world: int, folder: Path, **options: Any) -> list[Any]:
    """Run or resume; where no checkpoint is whole, do what the error says and begin anew."""
    found = spawned.run(killed.trainer, world, folder, **options)
    if any("there is no whole checkpoint: delete" in str(result) for result in found):
        for checkpoint in steps(folder / "run").values():
            shutil.rmtree(checkpoint)
        found = spawned.run(killed.trainer, world, folder, **options)
    return found


def is_finished(folder: Path, world: int) -> bool:
    """Whether the checkpoint of the last step is whole: the Trainer would take one more step from it."""
    last = folder / f"checkpoint-{killed.STEPS}"
    return not any(damage(last, rank=rank) for rank in range(world))


def same_run(folder: Path, expected: Path, world: int, form: str) -> None:
    last = f"checkpoint-{killed.STEPS}"
    assert (folder / last / "model.safetensors").read_bytes() == (expected / last / "model.safetensors").read_bytes()
    states = [checkpoints.load(path / last / "uds.safetensors") for path in (folder, expected)]
    assert flat(states[0]) == flat(states[1])
    names = ["optimizer.pt", *(["rng_state.pth"] if world == 1 else [f"rng_state_{rank}.pth" for rank in range(world)])]
    for name in names:
        a, b = (torch.load(path / last / name, weights_only=False) for path in (folder, expected))
        assert flat(a) == flat(b), name
    losses = [
        json.loads((path / last / "trainer_state.json").read_text())["log_history"] for path in (folder, expected)
    ]
    assert [row["loss"] for row in losses[0]] == [row["loss"] for row in losses[1]]
    for rank in range(world):
        rows, others = (list(audit.read(path / f"audit_{rank}.{form}")) for path in (folder, expected))
        assert [row["step"] for row in rows if row["position"] == 0] == list(range(killed.STEPS))
        assert rows == others


def flat(value: Any) -> Any:
    """Return plain data that compare bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {name: flat(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [flat(one) for one in value]
    return value.tobytes() if hasattr(value, "tobytes") else value
