"""One record of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import Turn

__all__ = ["Record"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample in one of three forms: prompt and completion, messages, or text alone."""

    where: str
    """File and line."""
    line: int
    prompt: str | None = None
    """None: there is none, and the completion is a text alone."""
    system: str = ""
    """Before the prompt; of a conversation, its first message is meant."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier turns, pairs of prompt and completion, between the two."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Field -> text that follows the prompt, unless the template names the field."""
    completion: str = ""
    messages: tuple[Turn, ...] = ()
    """Empty, or a conversation that ends with the assistant."""
    dropped: int = 0
    """Messages after the assistant's last."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """That a conversation may call."""
    choices: tuple[str, ...] = ()
    """The answers that the completion is one of; empty where the record does not offer any."""
    raw: Mapping[str, Any]
    """The whole record, with fields that training does not read."""
    format: str = "prompt-completion"
    """As it was recognised."""
    used: frozenset[str] = frozenset()
    """Fields that were read."""
    replaced: int = 0
    """Characters that were no text and became U+FFFD."""
