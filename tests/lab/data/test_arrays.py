"""Arrays of JSON are read element by element, wherever the blocks of a file end."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uds_adapters.lab.data import arrays
from uds_adapters.lab.errors import LabError

value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def read(text, *, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_BLOCK", block)
        return [*arrays.elements(io.BytesIO(text.encode()), file=Path("d.json"))]


@given(
    values=st.lists(value, max_size=5),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)
def test_blocks_of_any_size_have_the_same_elements(values, block, indent, ascii_only):
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    found = read(text, block=block)
    assert [json.loads(content) for _, content in found] == values
    assert [line for line, _ in found] == [line for line, _ in read(text, block=10**6)]
    if indent is not None:
        lines = text.splitlines()
        assert all(lines[line - 1].strip()[:1].encode() == content[:1] for line, content in found)


@pytest.mark.parametrize("block", [1, 7, 10**6])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a" 2}]', "d.json:2: this array is not JSON (Expecting ':' delimiter, column 7)"),
        ('[{"a": "b\n"}]', "d.json:1: this array is not JSON (Invalid control character at, column 10)"),
        ('[{"a": 1}', "d.json:1: expected a comma or the end of the array"),
        ('[{"a": "b]', "d.json:1: this array is not JSON (Unterminated string starting at, column 8)"),
        ("[1] [2]", "d.json:1: text after the end of the array: expected one array of JSON objects"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text, message, block):
    with pytest.raises(LabError) as raised:
        read(text, block=block)
    assert str(raised.value) == message


@pytest.mark.parametrize("block", [1, 5, 100])
def test_bytes_that_are_no_text_are_named(monkeypatch, block):
    monkeypatch.setattr(arrays, "_BLOCK", block)
    with pytest.raises(LabError, match=r"d\.json is not UTF-8 text \(byte 5\)"):
        [*arrays.elements(io.BytesIO(b'["ab \xff"]'), file=Path("d.json"))]
