"""Formats of records that people have: recognised, and brought to one form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import LabError
from .fields import Fields
from .messages import conversation, tools_of
from .record import Record

__all__ = ["record"]

_CONVERSATIONS = "conversations"
_PREFERENCE = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Names of the fields of a prompt and its completion."""

    prompt: str
    completion: str
    context: str | None = None
    history: str | None = None
    system: str | None = None


def record(raw: Mapping[str, Any], /, *, where: str, number: int, fields: Fields) -> Record:
    """Return the record with the fields `raw`, whichever format it has and whatever it was read from.

    Raises
    ------
    LabError
        If it has none of the formats, not the one in `fields`, or a field has a value that does not fit.
    """
    choices = _choices(raw.get(fields.choices))
    used = frozenset({fields.choices} if choices else ())
    bare = Record(where=where, line=number, raw=raw, choices=choices, used=used)
    for name in _FORMATS if fields.format == "auto" else (fields.format,):
        if name in ("messages", "sharegpt"):
            key = _messages_field(raw, name, fields)
            if key is not None:
                return _conversation(bare, key, raw[key], name=name, fields=fields)
        elif name == "text":
            if fields.text in raw:
                text = _text(raw, fields.text, where)
                return replace(bare, format=name, used=used | {fields.text}, completion=text)
        elif (pair := _pair(raw, name, fields)) is not None:
            return _prompted(bare, pair, name=name, fields=fields)
    raise LabError(_unknown(raw, fields, where))


_FORMATS = ("prompt-completion", "messages", "sharegpt", "dolly", "alpaca", "text")  # in the order they are looked for


def _pair(raw: Mapping[str, Any], name: str, fields: Fields) -> _Pair | None:
    """Return the names of the fields that `raw` has in the format `name`; None: it does not have it."""
    if name == "prompt-completion":
        pair = _Pair(
            prompt=fields.prompt,
            completion=fields.completion,
            context=fields.context,
            history=fields.history,
            system=fields.system,
        )
        return pair if pair.prompt in raw and pair.completion in raw else None
    if fields.format == "auto" and fields.named("prompt", "completion", "messages", "text"):
        return None  # what the user named is meant, and nothing else
    usual = "context" if name == "dolly" else "input"
    answers = ("response",) if name == "dolly" else ("output", "response")
    if fields.format == "auto" and name == "dolly" and usual not in raw:
        return None
    prompt = fields.prompt if fields.named("prompt") else "instruction"
    completion = fields.completion if fields.named("completion") else next((a for a in answers if a in raw), None)
    if prompt not in raw or completion is None or completion not in raw:
        return None
    return _Pair(
        prompt=prompt,
        completion=completion,
        context=fields.context or usual,
        history=fields.history or "history",
        system=fields.system or "system",
    )


def _messages_field(raw: Mapping[str, Any], name: str, fields: Fields) -> str | None:
    if fields.messages in raw and (name == "messages" or fields.named("messages")):
        return fields.messages
    if name == "sharegpt" and _CONVERSATIONS in raw and not fields.named("messages"):
        return None if fields.format == "auto" and fields.named("prompt", "completion", "text") else _CONVERSATIONS
    return None


def _prompted(bare: Record, pair: _Pair, *, name: str, fields: Fields) -> Record:
    raw, where = bare.raw, bare.where
    names = (pair.prompt, pair.completion, pair.context, pair.history, pair.system)
    bare = replace(bare, used=bare.used | {name for name in names if name is not None and name in raw})
    if isinstance(raw[pair.prompt], list):
        answer = raw[pair.completion]
        turns = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        return _conversation(bare, pair.prompt, [*raw[pair.prompt], *turns], name=name, fields=fields)
    context = _optional(raw, pair.context, where)
    return replace(
        bare,
        format=name,
        prompt=_text(raw, pair.prompt, where),
        system=_optional(raw, pair.system, where),
        history=_history(raw, pair.history, where),
        context={pair.context: context} if pair.context and context else {},
        completion=_completion(bare, pair.completion),
    )


def _conversation(bare: Record, key: str, value: Any, *, name: str, fields: Fields) -> Record:
    raw, where = bare.raw, bare.where
    turns = conversation(value, where=where, field=key, role=fields.role, content=fields.content)
    kept = turns
    while kept and kept[-1]["role"] != "assistant":
        kept = kept[:-1]
    if not kept:
        msg = f"{where}: the last of {key!r} must be from the 'assistant', whose words are trained on"
        raise LabError(msg)
    dropped = len(turns) - len(kept)
    system, tools = fields.system or "system", fields.tools or "tools"
    if (text := _optional(raw, system, where)) and kept[0]["role"] != "system":
        kept = ({"role": "system", "content": text}, *kept)
    return replace(
        bare,
        format=name,
        used=bare.used | {key, system, tools, "functions"},
        messages=kept,
        dropped=dropped,
        tools=tools_of(raw, where=where, field=tools),
    )


def _history(raw: Mapping[str, Any], name: str | None, where: str) -> tuple[tuple[str, str], ...]:
    """Return earlier turns, in order."""
    value = raw.get(name) if name else None
    if value in (None, []):
        return ()
    sound = isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value
    )
    if not sound:
        msg = f"{where}: the field {name!r} must be a list of pairs of texts, an earlier prompt and its completion"
        raise LabError(msg)
    return tuple((pair[0], pair[1]) for pair in value)


def _optional(raw: Mapping[str, Any], name: str | None, where: str) -> str:
    return _text(raw, name, where) if name is not None and raw.get(name) is not None else ""


def _completion(bare: Record, name: str) -> str:
    """Return the text, a number as JSON has it; or, as in MMLU, the choice at a place that counts from 0."""
    value, choices, where = bare.raw[name], bare.choices, bare.where
    if isinstance(value, int) and not isinstance(value, bool) and choices:
        if 0 <= value < len(choices):
            return choices[value]
        msg = f"{where}: the field {name!r} is {value}, and there are {len(choices)} choices, from 0 on"
        raise LabError(msg)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    return _text(bare.raw, name, where)


def _choices(value: Any) -> tuple[str, ...]:
    """Of a field that only some metrics read: what is no list of strings is none."""
    sound = isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    return tuple(value) if sound else ()


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(raw[name], str):
        msg = f"{where}: the field {name!r} must be a string, got {type(raw[name]).__name__}"
        raise LabError(msg)
    return raw[name]


def _unknown(raw: Mapping[str, Any], fields: Fields, where: str) -> str:
    has = f"the record has {', '.join(map(repr, raw)) or 'none'}"
    if all(name in raw for name in _PREFERENCE):
        return (
            f"{where}: preference pairs, with 'chosen' and 'rejected'; `uds` trains on single answers: name the "
            f"better one with `--completion-field chosen`, or, where it is a conversation, `--messages-field chosen`"
        )
    if fields.format in ("alpaca", "dolly", "sharegpt"):
        wanted = {
            "alpaca": "'instruction' and 'output' or 'response'",
            "dolly": "'instruction' and 'response'",
            "sharegpt": f"{fields.messages!r}" if fields.named("messages") else f"{_CONVERSATIONS!r}",
        }[fields.format]
        return f"{where}: expected the fields of `--format {fields.format}`, {wanted}; {has}. Map them with `--columns`"
    return (
        f"{where}: expected the fields {fields.prompt!r} and {fields.completion!r}, or {fields.messages!r}, or "
        f"{fields.text!r}; {has}. Name its fields with "
        "`--prompt-field` and `--completion-field`, `--messages-field` or `--text-field`"
    )
