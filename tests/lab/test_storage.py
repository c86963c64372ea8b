"""Files are whole or not there."""

import errno
import os

import pytest

from uds_adapters.lab.errors import LabError
from uds_adapters.lab.storage import disk_full, folder, write


def test_written_and_replaced(tmp_path):
    write(tmp_path / "a.json", "one")
    write(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "no space left on the disk"), (errno.EACCES, "cannot write")]
)
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, number, said):
    write(tmp_path / "a.json", "one")

    def full(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabError, match=said):
        write(tmp_path / "a.json", "two")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "one"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_folders(tmp_path):
    assert folder(folder(tmp_path / "a" / "b")).is_dir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LabError, match="is a file"):
        folder(tmp_path / "file")
    with pytest.raises(LabError, match="cannot write"):
        folder(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "x"), False),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1254400 vs 1254288"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (ValueError("no such option"), False),
    ],
    ids=str,
)
def test_errors_of_a_full_disk_whatever_library_raises_them(error, full):
    assert disk_full(error) is full
    later = RuntimeError("closing failed")
    later.__context__ = error
    assert disk_full(later) is full
