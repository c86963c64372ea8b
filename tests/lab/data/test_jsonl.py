"""JSONL read window by window."""

import pytest

from uds_adapters.lab.data.jsonl import Line, read, windows
from uds_adapters.lab.errors import LabError

TEXT = b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xe2\x80\xa8"}\r\n  \n{"a": 3}\n{"a": 4}'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(TEXT)
    return path


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_windows_hold_every_record_once_and_byte_for_byte(file, size):
    every = windows(file, size=size)
    assert [w.records for w in every[:-1]] == [size] * (len(every) - 1)
    lines = [line for window in every for line in read(file, window)]
    assert lines == [
        Line(0, 1, b'{"a": 1}', b"\n"),
        Line(1, 3, b'{"a": "\xe2\x80\xa8"}', b"\r\n"),
        Line(2, 5, b'{"a": 3}', b"\n"),
        Line(3, 6, b'{"a": 4}', b""),
    ]


def test_a_limit_counts_records_not_lines(file):
    every = windows(file, size=2, limit=3)
    assert [line.record for window in every for line in read(file, window)] == [0, 1, 2]


def test_what_holds_nothing(tmp_path, file):
    (tmp_path / "empty.jsonl").write_bytes(b"\n \n")
    for path, limit, said in (
        (tmp_path / "empty.jsonl", None, "no records"),
        (tmp_path / "none.jsonl", None, "no file"),
        (file, 0, "`limit` must be at least 1"),
    ):
        with pytest.raises(LabError, match=said):
            windows(path, size=4, limit=limit)
