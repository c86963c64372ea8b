"""JSONL read window by window."""

import itertools
import json

import pytest

from uds_adapters.lab.data import records
from uds_adapters.lab.data.jsonl import Line, parse, read, windows
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


ENDS = (b"\n", b"\r\n", b"\r")
RECORD = b'{"text": "a\xc2\xa0b\xe2\x80\xa8\xc2\x85\x1c"}'.replace(b"\x1c", b"\\u001c")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("blank", [b"", b" \t", b"\xef\xbb\xbf"])
def test_all_readers_agree_on_lines_and_blanks(tmp_path, end, blank):
    path = tmp_path / "d.jsonl"
    path.write_bytes(end.join([RECORD, blank, b"\xef\xbb\xbf" + RECORD, blank, b" " + RECORD]))
    whole = [(record.line, record.completion) for record in records.read(path)]
    windowed = [
        (line.line, parse(line, where="d").fields["text"])
        for window in windows(path, size=2)
        for line in read(path, window)
    ]
    assert whole == windowed == [(n, "a\u00a0b\u2028\u0085\u001c") for n in (1, 3, 5)]


@pytest.mark.parametrize("odd", ["\u00a0", "\u2028", "\x0b", "\x0c", "\u200b"])
def test_other_white_space_is_no_blank_line(tmp_path, odd):
    path = tmp_path / "d.jsonl"
    path.write_text(f'{{"text": "a"}}\n{odd}\n', encoding="utf-8")
    assert windows(path, size=9)[0].records == 2
    with pytest.raises(LabError, match=r"d\.jsonl:2: this line is not JSON"):
        records.read(path)


def line(text, number=1):
    return Line(0, number, text if isinstance(text, bytes) else text.encode(), b"")


@pytest.mark.parametrize(
    ("escaped", "expected", "number"),
    [
        (r"cut \ud83d", "cut \ufffd", 1),
        (r"\uDE00\ud83d x", "\ufffd\ufffd x", 2),
        (r"whole \ud83d\ude00", "whole \U0001f600", 0),
        (r"\\ud83d", r"\ud83d", 0),
    ],
)
def test_halves_of_surrogate_pairs_are_replaced_and_counted(escaped, expected, number):
    nested = f'{{"k": [{{"{escaped}": "{escaped}"}}, 1, null], "text": "{escaped}"}}'
    assert parse(line(nested), where="d:1") == ({"k": [{expected: expected}, 1, None], "text": expected}, 3 * number)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": ' + "1" * 5000 + "}", "a number of thousands of digits"),
        ('{"id": -' + "1" * 5000 + "}", "a number of thousands of digits"),
        ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"x": ' * 100_000, "nested too deeply"),
        ('{"s": "\\ud83d", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (b'{"x": "\xed\xa0\xbd"}', "not UTF-8"),
        ("{".encode("utf-16"), "looks like UTF-16"),
    ],
    ids=range(7),
)
def test_what_python_cannot_hold_is_named(text, said):
    with pytest.raises(LabError, match=f"d:1.*{said}"):
        parse(line(text), where="d:1")


def test_numbers_that_python_can_hold_are_read():
    assert parse(line('{"a": 1e999, "b": NaN, "c": ' + "1" * 4000 + "}"), where="d").fields["c"] == int("1" * 4000)


def test_a_number_below_the_limit_of_nesting(tmp_path):
    deep = json.dumps({"text": "a", "x": json.loads("[" * 200 + "]" * 200)})
    assert parse(line(deep.replace('"a"', r'"\ud83d"')), where="d").replaced == 1


def test_any_cut_of_a_file_into_windows_has_the_same_records(tmp_path):
    path = tmp_path / "d.jsonl"
    for ends in itertools.product(ENDS, repeat=3):
        path.write_bytes(b"".join(b'{"text": "%d"}' % n + end for n, end in enumerate(ends)))
        for size in (1, 2, 3):
            found = [line.content for window in windows(path, size=size) for line in read(path, window)]
            assert found == [b'{"text": "%d"}' % n for n in range(3)]
