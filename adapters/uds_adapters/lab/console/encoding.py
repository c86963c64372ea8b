"""Output streams that print any text, whatever their encoding."""

from __future__ import annotations

import codecs
import io
import sys

__all__ = ["print_any_text"]

_PLAIN = {
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{BULLET}": "*",
}
_ERRORS = "uds_plain"


def print_any_text() -> None:
    """Let stdout and stderr write characters that they cannot encode in plain ones, or as escapes.

    Without it the last line of a run ends in an error where the encoding is ASCII, as in many job logs.
    """
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if character in _PLAIN:
        return _PLAIN[character], error.start + 1
    one = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(one)
