"""Standard input and names on the Hub become files; what is neither is named."""

import io
import json
import sys

import pytest

from uds_adapters.lab.data import records
from uds_adapters.lab.data.named import as_files
from uds_adapters.lab.errors import LabError

PAIRS = [{"prompt": f"q {n}", "completion": f"a {n}"} for n in range(6)]


class Stdin:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize("text", ["".join(json.dumps(pair) + "\n" for pair in PAIRS), json.dumps(PAIRS)])
def test_standard_input_is_read_as_lines_or_as_an_array(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", Stdin(text.encode()))
    path = as_files(records.Path("-"))
    for _ in range(2):  # as often as a command asks for it
        assert [record.raw for record in records.read(path)] == PAIRS


def test_standard_input_that_holds_nothing_or_belongs_to_one_process_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    with pytest.raises(LabError, match="`--data -` reads standard input, and it is empty"):
        as_files(records.Path("-"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LabError, match="which only one of several processes has"):
        as_files(records.Path("-"))


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("owner/pairs", ("owner/pairs", None, "train")),
        ("owner/pairs:test", ("owner/pairs", None, "test")),
        ("owner/pairs/main:train[:50%]", ("owner/pairs", "main", "train[:50%]")),
    ],
)
def test_a_name_is_what_datasets_keeps_of_it(monkeypatch, tmp_path, shards, name, asked):
    datasets = pytest.importorskip("datasets", reason="the Hub's data sets are read by datasets")
    made = datasets.Dataset.from_list(PAIRS)
    size, files = len(PAIRS) // shards, []
    for shard in range(shards):
        file = "pairs-train.arrow" if shards == 1 else f"pairs-train-{shard:05}-of-{shards:05}.arrow"
        files.append({"filename": str(tmp_path / file)})
        part = made.select(range(shard * size, (shard + 1) * size)).flatten_indices()
        with datasets.arrow_writer.ArrowWriter(path=files[-1]["filename"], features=made.features) as writer:
            for row in part:
                writer.write(row)
            writer.finalize()
    (tmp_path / "pairs-test.arrow").write_bytes(b"another split")
    calls = []

    def load(name, config, *, split, keep_in_memory):
        calls.append((name, config, split))
        return type("Loaded", (), {"cache_files": files[::-1]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [record.raw for record in records.read(as_files(records.Path(name)))] == PAIRS
    assert calls == [asked]


def test_a_name_that_cannot_be_read_has_a_reason(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the Hub's data sets are read by datasets")

    def load(*_, **__):
        msg = "no\nnetwork"
        raise ConnectionError(msg)

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(LabError, match=r"no file or folder owner/none, .*'train'.*: no network\. The network is off"):
        as_files(records.Path("owner/none"))


@pytest.mark.parametrize("name", ["owner/none.jsonl", "owner/none.json.gz", "none", "a/b/c/d", "/owner/none"])
def test_paths_are_no_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match=r"^no file "):
        as_files(records.Path(name))
    (tmp_path / "owner").mkdir()
    with pytest.raises(LabError, match=r"^no file "):
        as_files(records.Path("owner/none"))
