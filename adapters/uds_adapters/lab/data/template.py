"""Templates that join the fields of a record to the text that is trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LabError

__all__ = ["DEFAULT_TEMPLATE", "Template"]

DEFAULT_TEMPLATE = "{prompt}\n{completion}"

_PLACE = re.compile(r"\{\{(\w[\w .-]*)\}\}|\{(\w[\w .-]*)\}")


@dataclass(frozen=True)
class Template:
    """Text with the names of fields in braces, as in ``{prompt}``, parsed once; a name in double braces is itself.

    Parameters
    ----------
    text
        Holds ``{prompt}`` and, after it, ``{completion}``; any other name is a field of the record.

    Raises
    ------
    LabError
        If it does not, or holds ``{completion}`` twice, or characters that are no text.
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        names = [second for _, second in _PLACE.findall(self.text)]
        before = names[: names.index("completion")] if "completion" in names else []
        if "prompt" not in before or names.count("completion") > 1:
            msg = f"`template` must hold {{prompt}} and, after it, {{completion}} once; got {self.text!r}"
            raise LabError(msg)
        try:
            self.text.encode()
        except UnicodeEncodeError:
            msg = f"`template` is not UTF-8 text: {self.text!r}"
            raise LabError(msg) from None

    @property
    def names(self) -> set[str]:
        """Names of fields in the text."""
        return {name for _, name in _PLACE.findall(self.text) if name}

    def fill(self, raw: Mapping[str, Any], /, *, prompt: str, where: str) -> tuple[str, str]:
        """Return the text before the completion, and the text after it.

        Raises
        ------
        LabError
            If `raw` has no such field, or no text in it; `where` names the record.
        """
        parts = ["", ""]
        after, place = 0, 0
        for found in _PLACE.finditer(self.text):
            itself, name = found.groups()
            parts[after] += self.text[place : found.start()]
            place = found.end()
            if name == "completion":
                after = 1
            elif name == "prompt":
                parts[after] += prompt
            else:
                parts[after] += f"{{{itself}}}" if name is None else _text(raw, name, where)
        parts[after] += self.text[place:]
        return parts[0], parts[1]


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    if name not in raw:
        msg = (
            f"{where}: `template` names {{{name}}}, and the record has no such field, only "
            f"{', '.join(map(repr, raw))}; for the word itself write {{{{{name}}}}}"
        )
        raise LabError(msg)
    value = raw[name]
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    kind = type(value).__name__
    msg = f"{where}: `template` names {{{name}}}, and that field must be a string or a number, got {kind}"
    raise LabError(msg)
