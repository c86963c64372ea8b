"""JSONL in, records out; what is wrong is said with file and line."""

import json

import pytest

from uds_adapters.lab.data import records as data
from uds_adapters.lab.errors import LabError


def jsonl(tmp_path, *lines):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_three_forms_of_records(tmp_path):
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    path = jsonl(tmp_path, {"prompt": "p", "completion": "c"}, "", {"messages": turns}, {"text": "t\u2028t"})
    pair, chat, text = data.read(path)
    assert (pair.prompt, pair.completion, pair.where, pair.line) == ("p", "c", f"{path}:1", 1)
    assert (chat.messages, chat.line) == (tuple(turns), 3)
    assert (text.prompt, text.completion) == (None, "t\u2028t")


def test_fields_by_name_and_limit(tmp_path):
    path = jsonl(tmp_path, *({"question": str(n), "answer": "a"} for n in range(5)))
    records = data.read(path, fields=data.Fields(prompt="question", completion="answer"), limit=3)
    assert [record.prompt for record in records] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": ', "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ({"question": "q"}, "the record has 'question'.*--prompt-field"),
        ({"prompt": "p", "completion": True}, "'completion' must be a string, got bool"),
        ({"prompt": "p", "completion": None}, "'completion' must be a string, got NoneType"),
        ({"messages": "hi"}, "list of objects"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "must be from the 'assistant'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = jsonl(tmp_path, {"text": "fine"}, line)
    with pytest.raises(LabError, match=rf"d\.jsonl:2: .*{said}"):
        data.read(path)


def test_a_missing_an_empty_and_a_binary_file(tmp_path):
    with pytest.raises(LabError, match="no file"):
        data.read(tmp_path / "none.jsonl")
    with pytest.raises(LabError, match="no records"):
        data.read(jsonl(tmp_path, "", " "))
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabError, match="not UTF-8"):
        data.read(tmp_path / "b")
    with pytest.raises(LabError, match="`limit`"):
        data.read(tmp_path / "b", limit=0)
