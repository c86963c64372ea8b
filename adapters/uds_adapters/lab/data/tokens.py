"""Token ids of texts, and labels on the characters that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...batches import IGNORE
from ..errors import LabError
from .answers import Span

__all__ = ["Piece", "Tokens", "pad_id", "tokenize"]


class Piece(NamedTuple):
    """A text that is tokenized by itself."""

    text: str
    spans: Sequence[Span]  # that carry loss
    where: str  # file and line, for errors


class Tokens(NamedTuple):
    """The tokens of a piece; both lists have one entry a token."""

    ids: list[int]
    labels: list[int]


def tokenize(pieces: Sequence[Piece], /, *, tokenizer: Any) -> list[Tokens]:
    """Return the tokens of many pieces, without special tokens that the tokenizer would add.

    A token carries loss if it overlaps a span, as in transformers. A tokenizer that does not say where its tokens stand
    reads each span by itself.

    Raises
    ------
    LabError
        If the tokenizer cannot encode a text.
    """
    inside = [_within(piece) for piece in pieces]
    split = [place for place, spans in enumerate(inside) if spans and spans != [Span(0, len(pieces[place].text))]]
    found: list[Tokens | None] = [None] * len(pieces)
    whole = sorted({*range(len(pieces))} - {*split})
    for place, ids in zip(whole, _encoded([pieces[place] for place in whole], tokenizer), strict=True):
        found[place] = Tokens(ids, ids if inside[place] else [IGNORE] * len(ids))
    for place in split:
        one = _by_offsets if getattr(tokenizer, "is_fast", False) else _by_parts
        found[place] = one(pieces[place], inside[place], tokenizer)
    return [tokens for tokens in found if tokens is not None]


def pad_id(tokenizer: Any, /) -> int:
    """The id that fills; any would do, since the mask covers it."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def _within(piece: Piece) -> list[Span]:
    size = len(piece.text)
    return [Span(max(start, 0), min(end, size)) for start, end in piece.spans if end > 0 and start < size]


def _by_offsets(piece: Piece, spans: Sequence[Span], tokenizer: Any) -> Tokens:
    encoded = _call(piece.text, piece.where, tokenizer, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    carries = [any(start < s.end and end > s.start for s in spans) for start, end in offsets]
    return Tokens(ids, [token if loss else IGNORE for token, loss in zip(ids, carries, strict=True)])


def _by_parts(piece: Piece, spans: Sequence[Span], tokenizer: Any) -> Tokens:
    parts, place = list[Piece](), 0
    for start, end in [*spans, Span(len(piece.text), len(piece.text))]:
        parts += [Piece(piece.text[place:start], (), piece.where)]
        parts += [Piece(piece.text[start:end], [Span(0, end - start)], piece.where)]
        place = end
    found = tokenize(parts, tokenizer=tokenizer)
    return Tokens([i for tokens in found for i in tokens.ids], [i for tokens in found for i in tokens.labels])


def _encoded(pieces: Sequence[Piece], tokenizer: Any) -> list[list[int]]:
    """Return the ids of each piece; those of all texts at once, which is several times as fast."""
    texts = [piece for piece in pieces if piece.text]
    if not texts:
        return [[] for _ in pieces]
    try:
        ids = iter(tokenizer([piece.text for piece in texts], add_special_tokens=False)["input_ids"])
    except Exception:  # one by one, to name the record
        ids = iter([_call(piece.text, piece.where, tokenizer)["input_ids"] for piece in texts])
    return [next(ids) if piece.text else [] for piece in pieces]


def _call(text: str, where: str, tokenizer: Any, **more: Any) -> Any:
    try:
        return tokenizer(text, add_special_tokens=False, **more)
    except Exception as error:
        msg = f"{where}: the tokenizer cannot encode the text: {' '.join(str(error).split())}"
        raise LabError(msg) from None
