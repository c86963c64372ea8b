"""Summary of what was read: records left out and why, replaced characters, fields that nothing reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["REASONS", "Summary"]

_SHOWN = 12  # names
_PLACES = 3  # of each reason
REASONS = {
    "empty": "with an empty completion",
    "long": "whose prompt alone fills {length} tokens",
    "untrained": "without a token to predict",
    "weight": "whose last message has weight 0",
    "weights": "whose answers all have weight 0",
}
"""Why a record is left out -> in words."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of the records that were read."""

    length: int
    """Maximum tokens of a sample."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason, of `REASONS` -> number of records."""
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason -> file and line of the first records that were left out for it."""
    cut: int = 0
    """Records that are longer than that, whose end is cut off."""
    replaced: int = 0
    """Records with characters that were replaced."""
    unread: frozenset[str] = frozenset()
    """Keys of messages that the chat template does not read."""
    unused: frozenset[str] = frozenset()
    """Fields of records that are not part of the text."""
    formats: Mapping[str, int] = field(default_factory=dict)
    """Format -> number of records."""
    dropped: int = 0
    """Conversations with messages after the assistant's last."""
    unthought: int = 0
    """Conversations of which the chat template leaves thinking out of what is trained on."""
    in_words: int = 0
    """Conversations whose tools or tool calls are text, for the chat template does not show them."""

    @classmethod
    def joined(cls, parts: Iterable[Summary], /) -> Summary:
        """Return one summary of several."""
        parts = list(parts)
        left_out, formats = Counter[str](), Counter[str]()
        places: dict[str, tuple[str, ...]] = {}
        for part in parts:
            for reason, more in part.places.items():
                places[reason] = (*places.get(reason, ()), *more)[:_PLACES]
            left_out.update(part.left_out)
            formats.update(part.formats)
        return cls(
            length=parts[0].length,
            left_out=left_out,
            places=places,
            cut=sum(part.cut for part in parts),
            replaced=sum(part.replaced for part in parts),
            unread=frozenset(name for part in parts for name in part.unread),
            unused=frozenset(name for part in parts for name in part.unused),
            formats=formats,
            dropped=sum(part.dropped for part in parts),
            unthought=sum(part.unthought for part in parts),
            in_words=sum(part.in_words for part in parts),
        )

    @staticmethod
    def first_places(reasons: Iterable[tuple[str | None, str]], /) -> dict[str, tuple[str, ...]]:
        """Return the first places of each reason, of pairs of a reason, or None, and a place."""
        found: dict[str, tuple[str, ...]] = {}
        for reason, place in reasons:
            if reason is not None and len(known := found.get(reason, ())) < _PLACES:
                found[reason] = (*known, place)
        return found

    @classmethod
    def of_json(cls, values: Mapping[str, Any], /) -> Summary:
        """Return the summary that `as_json` wrote."""
        read: dict[str, Any] = {n: frozenset(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**read)

    def as_json(self) -> dict[str, Any]:
        """Return the summary in values that JSON has."""
        return {n: sorted(value) if isinstance(value, frozenset) else value for n, value in vars(self).items()}

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
        if self.formats:
            counted = [f"{name} ({number})" for name, number in self.formats.items()]
            notes.append(f"Read as {', '.join(self.formats if len(counted) == 1 else counted)}.")
        if self.cut:
            notes.append(f"Cut off after {self.length} tokens (`--max-length`): the end of {_records(self.cut)}.")
        return [*notes, *self.ignored()]

    def ignored(self) -> list[str]:
        """Return a sentence for each part of the data that is not read as it stands."""
        notes = []
        if names := sorted(self.unused):
            notes.append(f"Not part of the text: {'the field ' if len(names) == 1 else ''}{_listed(names)}.")
        if self.dropped:
            notes.append(f"In {_records(self.dropped)}, messages after the assistant's last were left out.")
        if self.unthought:
            notes.append(
                f"In {_records(self.unthought)}, the tokenizer's chat template leaves thinking out of answers that are "
                "trained on."
            )
        if self.in_words:
            notes.append(
                f"In {_records(self.in_words)}, tools and tool calls are JSON in the text of the system and of the "
                "assistant, for the tokenizer's chat template does not show them."
            )
        if self.replaced:
            notes.append(
                f"In {_records(self.replaced)}, halves of surrogate pairs, which are no text, were replaced by U+FFFD."
            )
        if names := sorted(self.unread):
            notes.append(
                f"Ignored, for the tokenizer's chat template does not read it, or there is none: {_listed(names)}."
            )
        return notes


def _records(number: int) -> str:
    return "1 record" if number == 1 else f"{number} records"


def _listed(names: Iterable[str]) -> str:
    """Return the first names, quoted."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
