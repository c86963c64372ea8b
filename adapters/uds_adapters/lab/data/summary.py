"""Summary of what was read: records left out and why, replaced characters, fields that nothing reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["REASONS", "Summary"]

REASONS = {
    "empty": "with an empty completion",
    "long": "whose prompt alone fills {length} tokens",
    "untrained": "without a token to predict",
    "weight": "whose last message has weight 0",
}
"""Why a record is left out -> in words."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of the records that were read."""

    length: int
    """Maximum tokens of a sample."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason, of `REASONS` -> number of records."""
    replaced: int = 0
    """Records with characters that were replaced."""
    unread: Iterable[str] = ()
    """Keys of messages, and `tools`, that the chat template does not read."""

    @classmethod
    def joined(cls, parts: Iterable[Summary], /) -> Summary:
        """Return one summary of several."""
        parts = list(parts)
        left_out = Counter[str]()
        for part in parts:
            left_out.update(part.left_out)
        return cls(
            length=parts[0].length,
            left_out=left_out,
            replaced=sum(part.replaced for part in parts),
            unread=frozenset(name for part in parts for name in part.unread),
        )

    @property
    def total_left_out(self) -> int:
        """Number of records that were left out."""
        return sum(self.left_out.values())

    def reasons(self) -> str:
        """Return why records were left out, each reason with its number."""
        found = [(number, REASONS[name]) for name, number in self.left_out.items() if number]
        return ", ".join(f"{number} left out, {words}" for number, words in found).format(length=self.length)

    def nothing(self, what: str, /) -> str:
        """Return the message of an error, where no record is left; `what` names the records."""
        if set(self.left_out) <= {"long"}:
            return f"no {what} has a completion within `max_length` = {self.length} tokens: raise it"
        hint = "raise `max_length`, and check the others" if self.left_out.get("long") else "check the data"
        return f"no {what} can be trained on ({self.reasons()}): {hint}"

    def notes(self) -> list[str]:
        """Return a sentence for each thing that a reader of the data would want to know."""
        notes = []
        if self.replaced:
            records = "1 record" if self.replaced == 1 else f"{self.replaced} records"
            notes.append(f"In {records}, halves of surrogate pairs, which are no text, were replaced by U+FFFD.")
        if names := sorted(self.unread):
            listed = ", ".join(map(repr, names))
            notes.append(f"Ignored, for the tokenizer's chat template does not read it, or there is none: {listed}.")
        return notes
