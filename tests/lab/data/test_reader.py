"""The same records from every kind of file, one by one and in windows; what is no such file is named."""

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uds_adapters.lab.data import records
from uds_adapters.lab.data.files import fingerprint, listed
from uds_adapters.lab.data.jsonl import parse
from uds_adapters.lab.data.reader import Reader
from uds_adapters.lab.errors import LabError

PAIRS = [{"prompt": f'a "{n}", b', "completion": f"c{n}\nd\u2028é"} for n in range(7)]
LINES = "".join(json.dumps(pair) + "\n" for pair in PAIRS).encode()


def table(path, separator):
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(PAIRS[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(PAIRS)


def shards(folder):
    folder.mkdir()
    (folder / "0.jsonl").write_bytes(LINES[: LINES.index(b"\n") + 1])
    (folder / "1.json").write_text(json.dumps(PAIRS[1:4], indent=2), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(PAIRS[4:]), folder / "2.parquet")
    (folder / "README.md").touch()


def saved(folder):
    import datasets

    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_list(PAIRS).save_to_disk(str(folder))
    finally:
        datasets.enable_progress_bars()


def zst(content):
    sink = pa.BufferOutputStream()
    with pa.output_stream(sink, compression="zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def arrow(path, writer):
    rows = pa.Table.from_pylist(PAIRS)
    with writer(str(path), rows.schema) as stream:
        stream.write_table(rows, max_chunksize=3)


FILES = {
    "d.jsonl": lambda path: path.write_bytes(LINES),
    "d": lambda path: path.write_bytes(LINES),
    "lines.json": lambda path: path.write_bytes(b"\n" + LINES),
    "d.json": lambda path: path.write_text(json.dumps(PAIRS, indent=2), encoding="utf-8"),
    "bom.json": lambda path: path.write_bytes(b"\xef\xbb\xbf \n" + json.dumps(PAIRS).encode() + b"\n"),
    "d.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "d.JSONL.BZ2": lambda path: path.write_bytes(bz2.compress(LINES)),
    "d.json.xz": lambda path: path.write_bytes(lzma.compress(json.dumps(PAIRS).encode())),
    "d.jsonl.zst": lambda path: path.write_bytes(zst(LINES)),
    "d.csv": lambda path: table(path, ","),
    "d.tsv": lambda path: table(path, "\t"),
    "d.parquet": lambda path: pq.write_table(pa.Table.from_pylist(PAIRS), path),
    "d.arrow": lambda path: arrow(path, pa.ipc.new_stream),
    "feather.arrow": lambda path: arrow(path, pa.ipc.new_file),
    "shards": shards,
    "saved": saved,
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_has_the_same_records(tmp_path, name):
    path = tmp_path / name
    FILES[name](path)
    assert [{"prompt": r.prompt, "completion": r.completion} for r in records.read(path)] == PAIRS
    for size, limit in ((1, None), (3, None), (3, 5), (100, 7)):
        reader = Reader(path)
        windows = reader.windows(size=size, limit=limit)
        assert sum(w.records for w in windows) == (limit or len(PAIRS))
        assert {w.records for w in windows[:-1]} <= {size}
        for order in (windows, windows[::-1], windows[::2]):  # as one process reads them, and as several do
            read = {line.record: parse(line, where="d").fields for window in order for line in reader.read(window)}
            assert read == {n: PAIRS[n] for w in order for n in range(w.record, w.record + w.records)}


def test_a_pattern_and_the_order_of_shards(tmp_path):
    shards(tmp_path / "shards")
    assert [file.name for file in listed(tmp_path / "shards")] == ["0.jsonl", "1.json", "2.parquet"]
    assert [file.name for file in listed(tmp_path / "sh*" / "[01].json*")] == ["0.jsonl", "1.json"]
    (tmp_path / "data [v1].jsonl").write_bytes(LINES)
    assert listed(tmp_path / "data [v1].jsonl") == [tmp_path / "data [v1].jsonl"]


def test_places_of_records(tmp_path):
    (tmp_path / "d.json").write_text(
        '[\n\n {"text": "a"},\n{"text":\n "b"}, {"text": "c"}\n,{"text": "d"}]', encoding="utf-8"
    )
    assert [record.line for record in records.read(tmp_path / "d.json")] == [3, 4, 5, 6]
    (tmp_path / "d.csv").write_text('text,n\na,1\n"b\nb",2\n\nc,3\n', encoding="utf-8")
    assert [(record.completion, record.line) for record in records.read(tmp_path / "d.csv")] == [
        ("a", 2), ("b\nb", 3), ("c", 6),
    ]  # fmt: skip
    shards(tmp_path / "shards")
    last = records.read(tmp_path / "shards")[-1]
    assert last.where == f"{tmp_path / 'shards' / '2.parquet'}:3"


@pytest.mark.parametrize("end", ["", "\n", " \n\t "])
@pytest.mark.parametrize("numbers", [0, 1, 2])
def test_arrays_of_any_length(tmp_path, numbers, end):
    (tmp_path / "d.json").write_text(f"{end}[{end}{', '.join(['{}'] * numbers)}{end}]{end}", encoding="utf-8")
    assert len([*Reader(tmp_path / "d.json")._rows()]) == numbers


BAD = {
    '[{"text": "a"}': "expected a comma or the end of the array",
    '[{"text": "a"},]': "this array is not JSON",
    "[,]": "this array is not JSON",
    '[{"a" 1}]': "this array is not JSON",
    '[{"text": "a"}] {}': "text after the end of the array",
    '[{"text": "a"},\n 3]': "d.json:2: expected a JSON object, got int",
    '[{"text": "a"},\n{"text": "b", "id": ' + "1" * 5000 + "}]": "d.json:2: this line holds a number of thousands",
    '[{"text": ' + "[" * 100_000 + "]": "nested too deeply",
    "[]": "holds no records",
    '[{"text": "\\ud83d"}]': None,
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_arrays_that_are_none(tmp_path, text):
    (tmp_path / "d.json").write_text(text, encoding="utf-8")
    if BAD[text] is None:
        (record,) = records.read(tmp_path / "d.json")
        assert (record.completion, record.replaced) == ("\ufffd", 1)
        return
    with pytest.raises(LabError, match=BAD[text]):
        records.read(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl.gz", LINES, "no whole gz file"),
        ("d.jsonl.gz", gzip.compress(LINES)[:-9], "no whole gz file"),
        ("d.jsonl.bz2", LINES, "no whole bz2 file"),
        ("d.jsonl.zst", zst(LINES)[:-9], "no whole zst file"),
        ("d.arrow", b"no Arrow", "is no Arrow file that can be read"),
        ("d.jsonl.xz", lzma.compress(LINES)[:-9], "no whole xz file"),
        ("d.parquet", LINES, "no Parquet file"),
        ("d.csv", b"prompt,completion\na,b\na,b,c\n", r"d\.csv:3: more fields than the 2 that the first line names"),
        ("d.csv", b"prompt,completion\na,b\na\n", r"d\.csv:3: the field 'completion' must be a string, got NoneType"),
        ("d.csv", b'prompt,completion\na,"b\n', "this is not CSV"),
        ("d.csv", b"prompt,completion\n\xff,a\n", "not UTF-8"),
        ("d.csv", b"prompt,completion\n", "holds no records"),
        ("d.csv", b"", "holds no records"),
        ("d.json", b"[\xff]", "not UTF-8"),
    ],
)
def test_what_is_no_such_file(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabError, match=said):
        records.read(tmp_path / name)


def test_long_fields_of_a_table_and_the_limit_of_the_module(tmp_path):
    import csv

    before = csv.field_size_limit()
    (tmp_path / "d.csv").write_text("text\n" + "a" * 200_000 + "\n", encoding="utf-8")
    assert len(records.read(tmp_path / "d.csv")[0].completion) == 200_000
    assert csv.field_size_limit() == before


def test_values_that_json_does_not_have(tmp_path):
    import datetime as dt

    pq.write_table(pa.table({"text": ["a"], "day": [dt.date(2026, 1, 2)], "raw": [b"\xff"]}), tmp_path / "d.parquet")
    (record,) = records.read(tmp_path / "d.parquet")
    assert (record.completion, record.raw["day"]) == ("a", "2026-01-02")


def test_folders_that_hold_nothing_or_several_splits(tmp_path):
    with pytest.raises(LabError, match=r"holds no records: expected files that end in \.jsonl"):
        listed(tmp_path)
    with pytest.raises(LabError, match="no file"):
        listed(tmp_path / "*.jsonl")
    (tmp_path / "dataset_dict.json").touch()
    saved(tmp_path / "train")
    with pytest.raises(LabError, match="several splits: name one of its folders: train"):
        listed(tmp_path)


def test_a_fingerprint_depends_on_every_file(tmp_path):
    shards(tmp_path / "shards")
    before = fingerprint(tmp_path / "shards")
    assert fingerprint(tmp_path / "shards" / "*.*") != before  # the README is one of them
    (tmp_path / "shards" / "0.jsonl").write_bytes(LINES)
    assert fingerprint(tmp_path / "shards") != before
