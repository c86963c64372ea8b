"""Training records: read, checked, and split into training and held-out parts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import LabError
from . import jsonl
from .jsonl import Line
from .messages import Turn, conversation, tools_of

__all__ = ["Fields", "Record", "parse", "read", "record", "split"]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Names under which a record keeps its parts."""

    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    text: str = "text"
    choices: str = "choices"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample in one of three forms: prompt and completion, messages, or text alone."""

    where: str
    """File and line."""
    line: int
    prompt: str | None = None
    """None: there is none, and the completion is a text alone."""
    completion: str = ""
    messages: tuple[Turn, ...] = ()
    """Empty, or a conversation that ends with the assistant."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """That a conversation may call."""
    choices: tuple[str, ...] = ()
    """The answers that the completion is one of; empty where the record does not offer any."""
    raw: Mapping[str, Any]
    """The whole record, with fields that training does not read."""
    replaced: int = 0
    """Characters that were no text and became U+FFFD."""


def read(path: Path, /, *, fields: Fields | None = None, limit: int | None = None) -> list[Record]:
    """Return the records of a JSONL file; blank lines are skipped.

    Parameters
    ----------
    path
        One JSON object a line.
    fields
        Where prompt, completion, messages or text are found; the first form that a record has is taken, in this order.
    limit
        Read only the first so many records.

    Raises
    ------
    LabError
        Where there is no such file, nothing in it, or a line that is no record, named by file and line number.
    """
    fields = Fields() if fields is None else fields
    if limit is not None and limit < 1:
        msg = f"`limit` must be at least 1, got {limit}"
        raise LabError(msg)
    records: list[Record] = []
    for line in jsonl.lines(path):
        records.append(parse(line, path=path, fields=fields))
        if len(records) == limit:
            break
    return records


def split(records: Sequence[Record], /, *, holdout: float, seed: int) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, disjoint, both in the file's order; a fraction `holdout` in (0, 1) is held out."""
    if not 0.0 < holdout < 1.0:
        msg = f"`holdout` must be a fraction between 0 and 1, got {holdout}; for a file of its own use `--eval-data`"
        raise LabError(msg)
    if len(records) < 2:
        msg = f"{records[0].where}: one record cannot be split; give held-out records with `--eval-data`"
        raise LabError(msg)
    size = min(len(records) - 1, max(1, round(holdout * len(records))))
    held = set(random.Random(seed).sample(range(len(records)), size))
    return (
        [record for number, record in enumerate(records) if number not in held],
        [records[number] for number in sorted(held)],
    )


def parse(line: Line, /, *, path: Path, fields: Fields) -> Record:
    """Return the record of one line of the file `path`."""
    where = f"{path}:{line.line}"
    parsed = jsonl.parse(line, where=where)
    found = record(parsed.fields, where=where, number=line.line, fields=fields)
    return replace(found, replaced=parsed.replaced)


def record(raw: Mapping[str, Any], /, *, where: str, number: int, fields: Fields) -> Record:
    """Return the record with the fields `raw`, whatever format they were read from."""
    common: dict[str, Any] = {"where": where, "line": number, "raw": raw, "choices": _choices(raw.get(fields.choices))}
    if fields.prompt in raw and fields.completion in raw:
        prompt, completion = _text(raw, fields.prompt, where), _completion(raw, fields, where, common["choices"])
        return Record(prompt=prompt, completion=completion, **common)
    if fields.messages in raw:
        turns = conversation(raw[fields.messages], where=where, field=fields.messages)
        return Record(messages=turns, tools=tools_of(raw, where=where), **common)
    if fields.text in raw:
        return Record(completion=_text(raw, fields.text, where), **common)
    msg = (
        f"{where}: expected the fields {fields.prompt!r} and {fields.completion!r}, or {fields.messages!r}, or "
        f"{fields.text!r}; the record has {', '.join(map(repr, raw)) or 'none'}. Name its fields with "
        "`--prompt-field` and `--completion-field`, `--messages-field` or `--text-field`"
    )
    raise LabError(msg)


def _choices(value: Any) -> tuple[str, ...]:
    """Of a field that only some metrics read: what is no list of strings is none."""
    sound = isinstance(value, list) and all(isinstance(choice, str) for choice in value)
    return tuple(value) if sound else ()


def _completion(raw: Mapping[str, Any], fields: Fields, where: str, choices: tuple[str, ...]) -> str:
    """The text; or, as in MMLU, the choice at a place that counts from 0."""
    value = raw[fields.completion]
    if isinstance(value, int) and not isinstance(value, bool) and choices:
        if 0 <= value < len(choices):
            return choices[value]
        msg = f"{where}: the field {fields.completion!r} is {value}, and there are {len(choices)} choices, from 0 on"
        raise LabError(msg)
    return _text(raw, fields.completion, where)


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    if not isinstance(raw[name], str):
        msg = f"{where}: the field {name!r} must be a string, got {type(raw[name]).__name__}"
        raise LabError(msg)
    return raw[name]
