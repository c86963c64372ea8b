"""Names of the fields of a record, and of its format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ..errors import LabError

__all__ = ["FORMATS", "Fields"]

FORMATS = ("auto", "prompt-completion", "alpaca", "dolly", "messages", "sharegpt", "text")
"""Formats of records; `auto`: each record's own."""

_ALSO = {"query": "context", "response": "completion", "role_tag": "role", "content_tag": "content"}  # LLaMA-Factory's


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Names under which a record keeps its parts; None: the usual name of its format."""

    format: str = "auto"
    prompt: str = "prompt"
    completion: str = "completion"
    messages: str = "messages"
    text: str = "text"
    choices: str = "choices"
    context: str | None = None
    """What follows the prompt: `input` in Alpaca's format, `context` in Dolly's."""
    history: str | None = None
    """Earlier turns, pairs of prompt and completion."""
    system: str | None = None
    tools: str | None = None
    role: str | None = None
    """Of a message."""
    content: str | None = None
    """Of a message."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            msg = f"`format` must be one of {', '.join(FORMATS)}; got {self.format!r}"
            raise LabError(msg)

    def named(self, *names: str) -> bool:
        """Return whether any of these has another name than by default."""
        return any(getattr(self, name) != getattr(Fields, name) for name in names)

    def mapped(self, columns: Iterable[str], /) -> Fields:
        """Return the fields with names from texts such as ``prompt=question``.

        Raises
        ------
        LabError
            If a text is no ``name=field``, or there is no such name.
        """
        known = [field.name for field in fields(self) if field.name != "format"]
        found: dict[str, str] = {}
        for text in columns:
            name, equals, value = (part.strip() for part in text.partition("="))
            name = _ALSO.get(name, name)
            if not (equals and value) or name not in known:
                msg = f"`columns` must be name=field, with one of the names {', '.join(known)}; got {text!r}"
                raise LabError(msg)
            found[name] = value
        return replace(self, **found)
