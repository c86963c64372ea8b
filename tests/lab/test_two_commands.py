"""Two commands into one folder or file, in every pair: the first wins, the second is refused with one clear message."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs signals that stop a process and let it go on"),
]

RUN = ["--steps", "2", "--batch-size", "4", "--policy", "random"]
SEARCH = ["--trials", "2", "--rungs", "2", "--seeds", "1", "--search", "keep=0.2..0.6", "--steps", "18"]
FIRST = {
    "compare": ["compare", *RUN],
    "train": ["train", *RUN],
    "tune": ["tune", "--batch-size", "4", "--policy", "random", *SEARCH],
    "demo": [
        "demo",
        "--records",
        "60",
        "--pretraining-steps",
        "2",
        "--steps",
        "2",
        "--seeds",
        "1",
        "--policy",
        "random",
    ],
}
SECOND = {**FIRST, **{f"{name} anew": [*command, "--overwrite"] for name, command in FIRST.items()}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0)


def arguments(command, source, output):
    data = [] if command[0] == "demo" else ["--model", str(source.model), "--data", str(source.data)]
    return [*command, *data, "--output", str(output)]


@contextmanager
def stopped(command, owner):
    """A process of `uds` that is stopped as soon as it has its lock; inside the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "uds_adapters.lab", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        while not owner.is_file():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def goes_on(process):
    process.send_signal(signal.SIGCONT)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output


def refused(command, process):
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, (command, result.output, result.exception)
    assert result.stderr.count("Error:") == 1
    assert f"another command is writing to {command[-1]} (process {process.pid} on " in " ".join(result.stderr.split())


@pytest.mark.parametrize("first", FIRST)
def test_folders(first, source, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    output = tmp_path / "out"
    with stopped(arguments(FIRST[first], source, output), output / "running.json") as process:
        for second in SECOND.values():
            refused(arguments(second, source, output), process)
        refused(["report", str(output)], process)
        goes_on(process)
    assert not [path for path in output.iterdir() if path.name.startswith("running")]
    if first in ("train", "tune"):  # with a configuration: the one that resumes is the second
        command = [first, "--resume", str(output)]
        with stopped(command, output / "running.json") as process:
            refused(command, process)
            refused([*arguments(FIRST[first], source, output)[:-2], "--overwrite", "--output", str(output)], process)
            goes_on(process)


def test_files(source, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    output, subset = tmp_path / "scores.parquet", tmp_path / "best.jsonl"
    score = ["score", "--model", str(source.model), "--data", str(source.data)]
    first = [*score, "--subset", str(subset), "--output", str(output)]
    with stopped(first, tmp_path / "best.jsonl.lock.json") as process:
        for more in ([], ["--overwrite"], ["--policy", "random"]):
            refused([*score, *more, "--output", str(output)], process)
        refused([*score, "--output", str(tmp_path / "other.parquet"), "--subset", str(subset)], process)
        goes_on(process)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.jsonl", "scores.parquet"]


def test_a_killed_command_blocks_nobody(source, tmp_path):
    output = tmp_path / "out"
    command = arguments(FIRST["train"], source, output)
    with stopped(command, output / "running.json") as process:
        process.kill()
        process.wait()
        assert (output / "running.json").is_file()
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    assert not (output / "running.json").exists()


def test_two_that_start_at_once_have_one_winner(source, tmp_path):
    command = [sys.executable, "-m", "uds_adapters.lab", *arguments(FIRST["compare"], source, tmp_path / "out")]
    command += ["--steps", "40"]  # the last counts; long enough for the other to come
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    (loser,) = [text for process, text in zip(both, said, strict=True) if process.returncode]
    assert "another command is writing to" in loser
