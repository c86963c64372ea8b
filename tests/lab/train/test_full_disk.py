"""A disk that is full while a run writes: one clear message, and the run is resumed once there is room."""

import json
import os
import subprocess

import pytest
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0)


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of a size that `resize` sets."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if os.name != "posix" or os.geteuid() != 0 or mount("size=1m").returncode:
        pytest.skip("needs root and a system that can mount a tmpfs")
    try:
        yield folder, lambda size: mount(f"remount,size={size}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(source, output):
    options = ["--policy", "random", "--steps", 4, "--batch-size", 4, "--save-every", 1, "--keep", 0.5]
    return uds("train", "--model", source.model, "--data", source.data, *options, "--output", output)


@pytest.mark.parametrize("size", ["1k", "100k", "4m", "9m", "13m"])  # of the files of a start, one, and two checkpoints
def test_train(source, tmp_path, disk, size):
    folder, resize = disk
    whole = train(source, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    resize(size)
    result = train(source, folder / "out")
    assert result.exit_code == 2, (result.output, result.exception)
    assert "no space left on the disk" in " ".join(result.stderr.split())
    resize("100m")
    begun = (folder / "out" / "config.yaml").exists()
    again = uds("train", "--resume", folder / "out") if begun else train(source, folder / "out")
    assert again.exit_code == 0, (again.output, again.exception)
    losses = [json.loads((out / "training.json").read_text())["losses"] for out in (tmp_path / "whole", folder / "out")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("command", ["compare", "score"])
def test_others(source, disk, command):
    folder, resize = disk
    resize("30k")
    more = ["--policy", "random", "--steps", 2, "--batch-size", 4] if command == "compare" else []
    output = folder / ("out" if command == "compare" else "out.parquet")
    options = ["--model", source.model, "--data", source.data, *more, "--output", output]
    result = uds(command, *options)
    assert result.exit_code == 2, (result.output, result.exception)
    assert "no space left on the disk" in " ".join(result.stderr.split())
    resize("100m")
    result = uds(command, *options)
    assert result.exit_code == 0, (result.output, result.exception)
