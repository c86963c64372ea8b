"""Conversations in the form that chat templates read: text, tool calls with parsed arguments, and tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from unicodedata import category

from ..errors import LabError

__all__ = ["Turn", "conversation", "is_blank", "says_something", "tools_of", "trained"]

Turn = Mapping[str, Any]
"""A message: `role`, `content` (text, or None beside tool calls), and maybe `tool_calls` and other keys."""

_ROLES = {  # of ShareGPT -> of chat templates
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
_CALLERS = ("function_call", "tool_call")  # roles whose words are calls
_WEIGHTS = ("weight", "loss_weight")  # of OpenAI's files, and of LLaMA-Factory's


def conversation(
    value: Any, /, *, where: str, field: str, role: str | None = None, content: str | None = None
) -> tuple[Turn, ...]:
    """Return the messages in `value`.

    Text in parts is joined, keys that are null are dropped, `function_call` becomes a tool call, and arguments that
    are JSON in a string are parsed, as chat templates expect them. Roles of ShareGPT get their usual names.

    Parameters
    ----------
    value
        A list of objects.
    where, field
        File, line and field, for errors.
    role, content
        Keys of a message; None: ``role`` or ``from``, ``content`` or ``value``.

    Raises
    ------
    LabError
        If a message has no role, or neither text nor tool calls.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        msg = f"{where}: the field {field!r} must be a list of objects with the strings 'role' and 'content'"
        raise LabError(msg)
    turns = []
    for number, raw in enumerate(value, start=1):
        named = _named(raw, role, content)
        if not isinstance(named.get("role"), str):
            msg = (
                f"{where}: the field {field!r} must be a list of objects with the strings 'role' and 'content'; "
                f"message {number} has {', '.join(map(repr, raw)) or 'none'}"
            )
            raise LabError(msg)
        turns.append(_turn(named, f"{where}: message {number} of {field!r}"))
    return tuple(turns)


def _named(raw: Mapping[str, Any], role: str | None, content: str | None) -> dict[str, Any]:
    """Return a message with the keys `role` and `content`, and roles that chat templates know."""
    who = role or ("role" if "role" in raw else "from")
    what = content or ("content" if "content" in raw else "value")
    turn = {name: value for name, value in raw.items() if name not in (who, what)}
    said, words = raw.get(who), raw.get(what)
    if said in _CALLERS:
        calls = _parsed(words)
        return {**turn, "role": "assistant", "tool_calls": calls if isinstance(calls, list) else [calls]}
    return {**turn, "role": _ROLES.get(said, said) if isinstance(said, str) else None, "content": words}


def trained(turn: Turn, /) -> bool:
    """Return whether a message may be trained on: not if its weight is 0."""
    return all(turn.get(name, 1) for name in _WEIGHTS)


def says_something(turn: Turn, /) -> bool:
    """Return whether a message has words or tool calls."""
    return bool(turn.get("tool_calls")) or not is_blank(turn["content"] or "")


def is_blank(text: str, /) -> bool:
    """Return whether a text is no answer: white space, and characters of no width."""
    return all(c.isspace() or category(c) in {"Cf", "Cc"} for c in text)


def tools_of(raw: Mapping[str, Any], /, *, where: str, field: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a record, from `field` or, as in older files, `functions`; none if it has neither.

    Raises
    ------
    LabError
        If they are no list of objects, and no JSON of one in a string.
    """
    name = next((name for name in (field, "functions") if raw.get(name) not in (None, "", [])), None)
    if name is None:
        return ()
    value = _parsed(raw[name])
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        msg = f"{where}: the field {name!r} must be a list of objects, each of which describes a tool"
        raise LabError(msg)
    return tuple({"type": "function", "function": tool} if name == "functions" else tool for tool in value)


def _turn(raw: Mapping[str, Any], where: str) -> Turn:
    turn = {name: value for name, value in raw.items() if value is not None}
    calls = turn.pop("tool_calls", None)
    if (old := turn.pop("function_call", None)) is not None:
        calls = [*(calls or []), old]
    for name in _WEIGHTS:
        if name in turn and turn[name] not in (0, 1):
            msg = f"{where}: {name!r} must be 0 or 1, for a message is trained on or not; got {turn[name]!r}"
            raise LabError(msg)
    if calls:
        turn["tool_calls"] = _calls(calls, where)
    turn["content"] = _content(turn.get("content"), where, calls=bool(calls))
    return turn


def _content(value: Any, where: str, *, calls: bool) -> str | None:
    if isinstance(value, str) or (value is None and calls):
        return value
    if isinstance(value, list):
        return "".join(_part(part, where) for part in value)
    msg = f"{where}: 'content' must be a string, or parts of text, or null beside tool calls; got {_kind(value)}"
    raise LabError(msg)


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else _kind(part)
    text = part.get("text", part.get("value")) if isinstance(part, dict) else None
    if kind != "text" or not isinstance(text, str):
        msg = f"{where}: 'content' has a part of type {kind!r}: expected text, for language models read nothing else"
        raise LabError(msg)
    return text


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        msg = f"{where}: 'tool_calls' must be a list, got {_kind(value)}"
        raise LabError(msg)
    return [_call(call, where) for call in value]


def _call(value: Any, where: str) -> dict[str, Any]:
    function = value.get("function", value) if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        msg = f"{where}: a tool call must be an object with a 'function' that has a 'name' and 'arguments'"
        raise LabError(msg)
    arguments = _parsed(function.get("arguments") or {})
    if not isinstance(arguments, dict):
        msg = f"{where}: the arguments of the tool call {name!r} must be an object, or JSON of one in a string"
        raise LabError(msg)
    outer = {key: item for key, item in value.items() if key not in function and key != "function"}
    return {"type": "function", **outer, "function": {**function, "arguments": arguments}}


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
