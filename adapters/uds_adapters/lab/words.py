"""Values in words, as they stand on a command line."""

from __future__ import annotations

import json
from typing import Any

from .errors import LabError

__all__ = ["pair", "value"]


def value(text: str, /) -> Any:
    """A number, ``true``, ``false``, ``null`` (Python's None) or JSON; or else the words themselves."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return text


def pair(text: str, /, *, option: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, which `option` was given.

    Raises
    ------
    LabError
        Where there is no name or no value.
    """
    name, found, rest = (part.strip() for part in text.partition("="))
    if not (name and found and rest):
        msg = f"`{option}` must be name=value, got {text!r}"
        raise LabError(msg)
    return name, value(rest)
