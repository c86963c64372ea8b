"""Text that can be shown: characters that a reader cannot see, or that a terminal obeys, as escapes."""

from __future__ import annotations

import re

__all__ = ["shortened", "visible"]

# control characters but tab and new line; of no width, or that turn the direction of writing; halves of surrogate pairs
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_MOST, _BEGIN, _END = 900, 500, 250  # characters


def visible(text: str, /) -> str:
    r"""Return text with escapes, such as ``\u200b``, in place of characters that cannot be seen."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def shortened(text: str, /) -> tuple[str, str, str]:
    """Return beginning, number of characters left out in words, and end of a long text; of a short one, all of it."""
    if len(text) <= _MOST:
        return text, "", ""
    return text[:_BEGIN], f"[... {len(text) - _BEGIN - _END:,} characters ...]", text[-_END:]
