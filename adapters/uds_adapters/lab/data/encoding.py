"""Encoding of records: token ids, labels on answers only, padded batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypedDict

import torch

from ...batches import IGNORE
from ..errors import LabError
from . import chat
from .answers import Span
from .chat import Rendered
from .records import Record
from .rendering import Renderer
from .summary import Summary
from .template import DEFAULT_TEMPLATE
from .tokens import Piece, Tokens, pad_id, tokenize

__all__ = ["Collator", "EncodedRecords", "Encoder", "Example", "pad_id"]


class Example(TypedDict):
    """One sample; both lists have one entry a token."""

    index: int
    """Its place in the data set."""
    input_ids: list[int]
    labels: list[int]


class EncodedRecords(NamedTuple):
    """Examples, the records they come from, and why others were left out."""

    examples: list[Example]
    records: list[Record]
    left_out: list[str | None]
    """For each record that was given, one of `REASONS`, or None."""
    lengths: list[int]
    """Number of tokens of each example before any is cut off."""
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Makes examples of records.

    Parameters
    ----------
    tokenizer
        Of transformers.
    template
        How prompt and completion are joined; see `Template`. Messages go through the tokenizer's chat template, or
        through ``role: content`` lines where it has none.
    train_on
        ``last`` or ``all``: of a conversation, the last answer carries loss, or all of the assistant's.
    max_length
        Tokens after which an example is cut.
    context
        The most tokens that the model has positions for, where that is known; no example may have more.
    vocabulary
        Rows of the model's embedding, where that is known; no example may have a token beyond.
    """

    tokenizer: Any
    template: str = DEFAULT_TEMPLATE
    train_on: str = "last"
    max_length: int = 512
    context: int | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        _ = self.rendered
        if self.max_length < 2:
            msg = f"`max_length` must be at least 2 tokens, got {self.max_length}"
            raise LabError(msg)

    @cached_property
    def rendered(self) -> Renderer:
        """Makes texts of records."""
        return Renderer(self.tokenizer, self.template, self.train_on)

    def __call__(self, records: Iterable[Record], /) -> tuple[list[Example], list[Record]]:
        """Return examples, and the records they come from; as `encode`."""
        found = self.encode(records)
        return found.examples, found.records

    def encode(self, records: Iterable[Record], /) -> EncodedRecords:
        """Return examples; left out are records without a completion, or with none of it within `max_length`.

        Raises
        ------
        LabError
            If a record is longer than the model's context or has a token beyond its embedding, or if the tokenizer, its
            chat template or the template fails.
        """
        records = list(records)
        left_out = [self.rendered.left_out(record) for record in records]
        texts = {n: self.rendered(record) for n, record in enumerate(records) if left_out[n] is None}
        examples, lengths = list[Example](), list[int]()
        for n, tokens in zip(texts, self._tokenized([*texts.values()], [records[n] for n in texts]), strict=True):
            cut = Tokens(tokens.ids[: self.max_length], tokens.labels[: self.max_length])
            if all(label == IGNORE for label in cut.labels[1:]):
                left_out[n] = "long" if any(label != IGNORE for label in tokens.labels[1:]) else "untrained"
                continue
            self._check(cut.ids, records[n])
            examples.append(Example(index=len(examples), input_ids=cut.ids, labels=cut.labels))
            lengths.append(len(tokens.ids))
        return EncodedRecords(
            examples=examples,
            records=[record for record, reason in zip(records, left_out, strict=True) if reason is None],
            left_out=left_out,
            lengths=lengths,
            summary=Summary(
                length=self.max_length,
                left_out=Counter(reason for reason in left_out if reason is not None),
                places=Summary.first_places(zip(left_out, (record.where for record in records), strict=True)),
                cut=sum(length > self.max_length for length in lengths),
                replaced=sum(record.replaced > 0 for record in records),
                unread=frozenset(name for r in records for name in chat.unread(r, tokenizer=self.tokenizer)),
                unused=frozenset(name for record in records for name in self._unused(record)),
                formats=Counter(record.format for record in records),
                dropped=sum(record.dropped > 0 for record in records),
                unthought=sum(text.cut for text in texts.values()),
                in_words=sum(text.in_words for text in texts.values()),
            ),
        )

    def text(self, record: Record, /) -> str:
        """Return what the model reads of `record`, as people read it."""
        found = self.rendered(record)
        return found.prompt + found.completion

    def completion(self, record: Record, /) -> str:
        """Return the last answer."""
        return self.rendered(record).completion

    def prompt_ids(self, record: Record, /) -> list[int]:
        """Return the tokens before the last answer; at least one, for generation to begin with."""
        found = self.rendered(record)
        begin = self.tokenizer.bos_token_id
        ((ids, _),) = tokenize([Piece(found.prompt, (), record.where)], tokenizer=self.tokenizer)
        return [begin] * (not found.special and begin is not None) + ids or [pad_id(self.tokenizer)]

    def _unused(self, record: Record) -> set[str]:
        """Return the fields of a record that are not part of its text."""
        named = self.rendered.parsed.names if record.prompt is not None else set[str]()
        return record.raw.keys() - record.used - named

    def _tokenized(self, texts: Sequence[Rendered], records: Sequence[Record]) -> Iterator[Tokens]:
        """Yield the tokens of each text, special ones included, whatever its length."""
        pieces: list[Piece] = []  # two a text, so that no token straddles a prompt and its answer
        for text, record in zip(texts, records, strict=True):
            size = len(text.prompt)
            pieces.append(Piece(text.prompt, text.spans, record.where))
            pieces.append(Piece(text.completion, [Span(s - size, e - size) for s, e in text.spans], record.where))
        found = iter(tokenize(pieces, tokenizer=self.tokenizer))
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        for text, before, after in zip(texts, found, found, strict=True):
            first = [begin] if begin is not None and not text.special else []
            last = [end] if end is not None and not text.special else []
            ends = bool(text.spans) and text.spans[-1].end == len(text.prompt) + len(text.completion)
            yield Tokens(
                [*first, *before.ids, *after.ids, *last],
                [*[IGNORE] * len(first), *before.labels, *after.labels, *(last if ends else [IGNORE] * len(last))],
            )

    def _check(self, ids: Sequence[int], record: Record) -> None:
        """Raise an error if the model has no position or no embedding for one of the tokens."""
        if self.context is not None and len(ids) > self.context:
            msg = (
                f"{record.where}: a sample of {len(ids)} tokens, and the model has positions for {self.context}: cut "
                f"samples with `--max-length {self.context}`"
            )
            raise LabError(msg)
        if self.vocabulary is not None and ids and max(ids) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            msg = (
                f"{record.where}: the token {token!r} has id {max(ids)}, and the model's embedding has "
                f"{self.vocabulary} rows: resize it with `model.resize_token_embeddings(len(tokenizer))` and save the "
                "model, or name the tokenizer that it was trained with"
            )
            raise LabError(msg)


@dataclass(frozen=True)
class Collator:
    """Pads a list of examples on the right to a batch of tensors, `index` among them."""

    pad: int

    def __call__(self, examples: Sequence[Mapping[str, Any]], /) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask`, `labels` (batch, time) and `index` (batch,)."""
        longest = max(len(example["input_ids"]) for example in examples)

        def rows(name: str, fill: int) -> torch.Tensor:
            return torch.tensor([[*e[name], *[fill] * (longest - len(e[name]))] for e in examples])

        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        return {
            "input_ids": rows("input_ids", self.pad),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
            "labels": rows("labels", IGNORE),
            "index": torch.tensor([example["index"] for example in examples]),
        }
