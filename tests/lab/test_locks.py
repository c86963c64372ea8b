"""One command at a time writes to a folder or file; what a killed one leaves behind blocks nobody."""

import errno
import json
import os
import signal
import subprocess
import sys

import filelock
import pytest

from uds_adapters.lab import storage
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.locks import locked_file, locked_folder

HOLD = """
import sys, time
from pathlib import Path
from uds_adapters.lab.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder `out`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def enter(lock):
    with lock:
        return "entered"


def test_a_second_process_is_refused_and_names_the_first(other, tmp_path):
    with pytest.raises(LabError, match=rf"writing to .*out \(process {other.pid} on .*, since .*: uds "):
        enter(locked_folder(tmp_path / "out"))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["running.json", "running.lock"]


def test_a_killed_process_blocks_nobody(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "out" / "running.json").is_file()
    assert storage.claim(tmp_path / "out", overwrite=False)  # its files are no results
    with locked_folder(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / "running.json").read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_without_results_is_deleted_and_others_stay(tmp_path):
    with locked_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with locked_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]
    with locked_folder(tmp_path / "a"):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_it_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked_folder(tmp_path / "out"):
            raise ZeroDivisionError
    assert not (tmp_path / "out").exists()


def test_files(tmp_path):
    with locked_file(tmp_path / "a.parquet"), locked_file(tmp_path / "b.parquet"):
        with pytest.raises(LabError, match=r"writing to .*a\.parquet"):
            enter(locked_file(tmp_path / "a.parquet"))
        assert not (tmp_path / "a.parquet").exists()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_or_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="is a file"):
        enter(locked_folder(tmp_path / "file"))
    with pytest.raises(LabError, match="cannot write"):
        enter(locked_folder(tmp_path / "file" / "below"))
    assert (tmp_path / "file").is_file()


@pytest.fixture
def without_locks(monkeypatch):
    def fail(*_args, **_options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)


@pytest.mark.parametrize(
    ("owner", "refused"),
    [
        (None, False),
        ({"pid": 1, "host": "another"}, True),
        ({"pid": 1}, True),
        ({"pid": 2**22 + 1, "host": None}, False),  # more than Linux has
    ],
)
def test_on_file_systems_without_locks_the_owner_decides(tmp_path, without_locks, owner, refused):
    if owner is not None:
        with locked_folder(tmp_path):
            mine = json.loads((tmp_path / "running.json").read_text(encoding="utf-8"))
        known = {name: value for name, value in owner.items() if value is not None}
        storage.write(tmp_path / "running.json", json.dumps({**mine, **known}))
    if refused:
        with pytest.raises(LabError, match="another command is writing"):
            enter(locked_folder(tmp_path))
    else:
        assert enter(locked_folder(tmp_path)) == "entered"
