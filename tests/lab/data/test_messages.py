"""Messages in the form that chat templates read."""

import json

import pytest

from uds_adapters.lab.data.messages import conversation, tools_of, trained
from uds_adapters.lab.errors import LabError

HI = {"role": "user", "content": "hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"town": "Oslo"}}}
TOOL = {"type": "function", "function": {"name": "weather"}}


def last(**turn):
    return conversation([HI, {"role": "assistant", **turn}], where="d:1", field="messages")[-1]


def test_text_as_it_is_and_text_in_parts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}, "c"]
    assert last(content=" ho ")["content"] == " ho "
    assert last(content=parts)["content"] == "abc"


def test_keys_that_are_null_are_dropped():
    assert last(content="ho", tool_calls=None, function_call=None, name=None) == {"role": "assistant", "content": "ho"}


@pytest.mark.parametrize("arguments", [{"town": "Oslo"}, '{"town": "Oslo"}', ' {"town":\n"Oslo"}'])
def test_arguments_are_parsed(arguments):
    call = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    for more in ({"content": None}, {"content": ""}, {}):
        turn = last(tool_calls=[call], **more)
        assert turn["tool_calls"] == [CALL]
        assert not turn["content"]


def test_no_arguments_in_every_spelling():
    for arguments in ({}, "", None, "{}"):
        (call,) = last(content=None, tool_calls=[{"function": {"name": "now", "arguments": arguments}}])["tool_calls"]
        assert call == {"type": "function", "function": {"name": "now", "arguments": {}}}


def test_older_forms_of_a_call():
    expected = [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    flat = {"name": "f", "arguments": '{"a": 1}'}
    assert last(content=None, function_call=flat)["tool_calls"] == expected
    assert last(content=None, tool_calls=[flat])["tool_calls"] == expected


def test_tools_in_each_form():
    for raw in ({"tools": [TOOL]}, {"tools": json.dumps([TOOL])}, {"functions": [TOOL["function"]], "tools": None}):
        assert tools_of(raw, where="d:1") == (TOOL,)
    for raw in ({}, {"tools": None}, {"tools": []}, {"tools": ""}):
        assert tools_of(raw, where="d:1") == ()
    for wrong in ("not JSON", {"a": 1}, ["weather"], 3):
        with pytest.raises(LabError, match="d:1: the field 'tools' must be a list of objects"):
            tools_of({"tools": wrong}, where="d:1")


def test_the_weight_of_the_last_message():
    assert [trained(last(content="a", **w)) for w in ({}, {"weight": 1}, {"weight": 0}, {"loss_weight": 0.0})] == [
        True, True, False, False,
    ]  # fmt: skip
    with pytest.raises(LabError, match=r"message 2 of 'messages': 'weight' must be 0 or 1.*got 0\.5"):
        last(content="a", weight=0.5)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"content": None}, "'content' must be a string.* got null"),
        ({}, "'content' must be a string.* got null"),
        ({"content": 3}, "got int"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, "a part of type 'image_url'"),
        ({"content": [3]}, "a part of type 'int'"),
        ({"content": None, "tool_calls": "f()"}, "'tool_calls' must be a list"),
        ({"content": None, "tool_calls": [3]}, "must be an object with a 'function'"),
        ({"content": None, "tool_calls": [{"function": {"arguments": {}}}]}, "must be an object with a 'function'"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "town"}}]}, "arguments of .*'f'"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}, "arguments of .*'f'"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]}, "arguments of"),
    ],
)
def test_what_is_no_message_is_named(turn, said):
    with pytest.raises(LabError, match=rf"d:1: message 2 of 'messages': .*{said}"):
        last(**turn)
