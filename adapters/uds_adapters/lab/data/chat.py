"""Conversations as text: through the chat template of a tokenizer, or as plain lines where it has none."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import LabError
from .messages import Turn
from .records import Record

__all__ = ["Rendered", "render", "unread"]

_ALWAYS_READ = frozenset({"role", "content", "tool_calls", "weight", "loss_weight"})


class Rendered(NamedTuple):
    """A conversation as text."""

    prompt: str
    completion: str  # what the last message adds
    special: bool  # whether the text has its special tokens already


def render(record: Record, /, *, tokenizer: Any) -> Rendered:
    """Return the text of a conversation, in two parts: up to the assistant's last message, and that message.

    Chat templates differ in what they expect of a message with tool calls: arguments as an object or as JSON, no
    content as an empty text or as null. The first of these is taken that shows every call with its arguments.

    Raises
    ------
    LabError
        If the chat template fails, drops a tool call, or does not begin with the conversation without its last message.
    """
    if not tokenizer.chat_template:
        return _plain(record)
    failed: str | None = None
    for turns in _variants(record.messages):
        try:
            prompt, whole = _templated(turns, record, tokenizer)
            missing = _dropped(turns, record, tokenizer)
        except Exception as error:  # a template is a program, which may raise anything
            failed = failed or f"the tokenizer's chat template refuses the conversation: {_words(error)}"
            continue
        if missing is not None:
            failed = failed or (
                f"the tokenizer's chat template does not show the tool call {missing!r} with its arguments: use a "
                "model whose template supports tools, or write the call into 'content'"
            )
        elif whole.startswith(prompt):
            return Rendered(prompt, whole[len(prompt) :], special=True)
        else:
            failed = failed or (
                "the tokenizer's chat template does not continue the conversation without its last turn, so it is not "
                "known which words are the completion; give prompt and completion instead"
            )
    msg = f"{record.where}: {failed}"
    raise LabError(msg)


def unread(record: Record, /, *, tokenizer: Any) -> set[str]:
    """Return the keys of messages, and `tools`, that the chat template does not read."""
    names = {name for turn in record.messages for name in turn} - _ALWAYS_READ
    names |= {"tools"} if record.tools else set()
    if not tokenizer.chat_template:
        return names - {"tools"}
    template = tokenizer.chat_template
    source = " ".join(template.values()) if isinstance(template, dict) else template
    return names - set(re.findall(r"\w+", source))


def _templated(turns: Sequence[Turn], record: Record, tokenizer: Any) -> tuple[str, str]:
    whole = _chat(turns, record, tokenizer)
    if len(turns) > 1:
        return _chat(turns[:-1], record, tokenizer, add_generation_prompt=True), whole
    # templates do not render an empty conversation: what precedes the only message's own words is its prompt
    own = (turns[0]["content"] or "").strip()
    return whole[: whole.find(own)] if own and own in whole else "", whole


def _chat(turns: Sequence[Turn], record: Record, tokenizer: Any, **more: Any) -> str:
    return tokenizer.apply_chat_template(list(turns), tools=list(record.tools) or None, tokenize=False, **more)


def _variants(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    if not any(turn.get("tool_calls") for turn in turns):
        yield turns
        return
    for empty, as_text in itertools.product(("", None), (False, True)):
        yield [_called(turn, empty=empty, as_text=as_text) if turn.get("tool_calls") else turn for turn in turns]


def _called(turn: Turn, *, empty: str | None, as_text: bool) -> Turn:
    calls = turn["tool_calls"]
    if as_text:
        calls = [{**c, "function": {**c["function"], "arguments": _json(c["function"]["arguments"])}} for c in calls]
    return {**turn, "content": turn["content"] or empty, "tool_calls": calls}


def _dropped(turns: Sequence[Turn], record: Record, tokenizer: Any) -> str | None:
    """Return the name of a tool call that the template does not show, or not as JSON; None: it shows them all."""
    for place, turn in enumerate(turns):
        if not turn.get("tool_calls"):
            continue
        before = _chat(turns[:place], record, tokenizer) if place else ""
        text = _chat(turns[: place + 1], record, tokenizer)
        text = text.removeprefix(before)  # which names the tools, and maybe calls of the same
        for call in record.messages[place]["tool_calls"]:
            if not _shows(text, call["function"]["name"], call["function"]["arguments"]):
                return call["function"]["name"]
    return None


def _shows(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    wrong = {repr(arguments), json.dumps(_json(arguments)), json.dumps(json.dumps(arguments))}
    wrong -= {_json(arguments), json.dumps(arguments)}
    keys = all(key in text or json.dumps(key)[1:-1] in text for key in arguments)
    return name in text and keys and not any(one in text for one in wrong)


def _plain(record: Record) -> Rendered:
    *before, last = record.messages
    tools = f"tools: {_json(list(record.tools))}\n" if record.tools else ""
    prompt = tools + "".join(f"{turn['role']}: {_spoken(turn)}\n" for turn in before) + "assistant: "
    return Rendered(prompt, _spoken(last), special=False)


def _spoken(turn: Turn) -> str:
    calls = (call["function"] for call in turn.get("tool_calls", ()))
    said = [_json({"name": call["name"], "arguments": call["arguments"]}) for call in calls]
    return "\n".join([*([turn["content"]] if turn["content"] else []), *said])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
