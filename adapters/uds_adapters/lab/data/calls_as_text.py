"""Tools and tool calls as text, for chat templates that do not show them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .messages import Turn
from .records import Record

__all__ = ["as_json", "in_words", "spoken", "tools_in_words"]


def in_words(record: Record, /, *, tools: bool) -> Iterator[Record]:
    """Yield a conversation whose calls are part of the assistant's text; `tools`: and its tools of the system text.

    A second form is for templates without the roles `tool` and `system`: results of tools, and tools, are of the user.
    """
    named = tools_in_words(record) if tools else ""
    turns = [_said(turn) for turn in record.messages]
    kept = {} if not tools else {"tools": ()}
    if turns[0]["role"] == "system":
        yield replace(record, messages=_begun(turns, named), **kept)
    else:
        system = [{"role": "system", "content": named}] if named else []
        yield replace(record, messages=(*system, *turns), **kept)
    turns = [{**turn, "role": "user"} if turn["role"] == "tool" else turn for turn in turns]
    if turns[0]["role"] in ("system", "user"):
        yield replace(record, messages=_begun(turns, named), **kept)


def tools_in_words(record: Record, /) -> str:
    """Return the tools that a conversation may call as a line of text; empty: it has none."""
    return f"tools: {as_json(list(record.tools))}" if record.tools else ""


def spoken(turn: Turn, /) -> str:
    """Return what a message says: its text, and a line of JSON for each call."""
    calls = (call["function"] for call in turn.get("tool_calls", ()))
    said = [as_json({"name": call["name"], "arguments": call["arguments"]}) for call in calls]
    return "\n".join([*([turn["content"]] if turn["content"] else []), *said])


def as_json(value: Any, /) -> str:
    """Return `value` as JSON, characters of all scripts as they are."""
    return json.dumps(value, ensure_ascii=False)


def _said(turn: Turn) -> Turn:
    if not turn.get("tool_calls"):
        return turn
    return {**{name: value for name, value in turn.items() if name != "tool_calls"}, "content": spoken(turn)}


def _begun(turns: list[Turn], text: str) -> tuple[Turn, ...]:
    """Return messages, the first with `text` after its own, or before that of a user."""
    first = turns[0]
    parts = (first["content"], text) if first["role"] == "system" else (text, first["content"])
    return ({**first, "content": "\n\n".join(part for part in parts if part)}, *turns[1:])
