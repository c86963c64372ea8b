"""One record as the model reads it: its text in pieces, with and without loss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import PurePath
from typing import Any

from ...batches import IGNORE
from ..data.encoding import Encoder
from ..data.records import Record
from ..data.summary import REASONS
from .values import Piece, Sample

__all__ = ["pieces", "place", "sample"]


def sample(record: Record, /, *, encoder: Encoder, repeats: str | None = None, similarity: float = 0.0) -> Sample:
    """Return a record as the model reads it; of one that is left out, what stands in the data."""
    found = encoder.encode([record])
    about: dict[str, Any] = {"place": place(record.where), "format": record.format}
    about |= {"repeats": repeats, "similarity": similarity}
    if not found.examples:
        reason = REASONS[found.left_out[0] or "untrained"].format(length=encoder.max_length)
        text = json.dumps(record.raw, ensure_ascii=False, default=str)
        return Sample(**about, pieces=(Piece(text=text, trained=False),), tokens=0, trained=0, left_out=reason)
    ids, labels = found.examples[0]["input_ids"], found.examples[0]["labels"]
    carried = [False, *(label != IGNORE for label in labels[1:])]  # nothing predicts the first token
    return Sample(
        **about,
        pieces=tuple(pieces(ids, carried, tokenizer=encoder.tokenizer)),
        tokens=len(ids),
        trained=sum(carried),
        cut=found.lengths[0] - len(ids),
    )


def pieces(ids: Sequence[int], carried: Sequence[bool], /, *, tokenizer: Any) -> Iterator[Piece]:
    """Yield the text of tokens, a piece for each run with or without loss.

    Each is what it adds to the text before it: decoded alone it could lose the space that it begins with.
    """
    end, before = 0, ""
    for trained, run in groupby(carried):
        start, end = end, end + sum(1 for _ in run)
        whole = _decoded(ids[:end], tokenizer)
        known = whole.startswith(before)
        text, before = whole[len(before) :] if known else _decoded(ids[start:end], tokenizer), whole
        yield Piece(text=text, trained=trained)


def place(where: str, /) -> str:
    """Return file and line without the folder."""
    return PurePath(where).name


def _decoded(ids: Sequence[int], tokenizer: Any) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
