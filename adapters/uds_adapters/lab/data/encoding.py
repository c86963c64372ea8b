"""Encoding of records: token ids, labels on the completion only, padded batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypedDict
from unicodedata import category

import torch

from ...batches import IGNORE
from ..errors import LabError
from . import chat
from .messages import trained
from .records import Record
from .summary import Summary
from .template import DEFAULT_TEMPLATE, Template

__all__ = ["Collator", "EncodedRecords", "Encoder", "Example", "pad_id"]


class Example(TypedDict):
    """One sample; both lists have one entry a token."""

    index: int
    """Its place in the data set."""
    input_ids: list[int]
    labels: list[int]


class Encoded(NamedTuple):
    """Token ids and labels of one record, or the reason why it is left out."""

    ids: list[int]
    labels: list[int]
    left_out: str | None
    """One of `REASONS`, or None."""
    length: int = 0
    """Number of tokens before any is cut off."""


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
    max_length
        Tokens after which an example is cut.
    context
        The most tokens that the model has positions for, where that is known; no example may have more.
    vocabulary
        Rows of the model's embedding, where that is known; no example may have a token beyond.
    """

    tokenizer: Any
    template: str = DEFAULT_TEMPLATE
    max_length: int = 512
    context: int | None = None
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        _ = self._template
        if self.max_length < 2:
            msg = f"`max_length` must be at least 2 tokens, got {self.max_length}"
            raise LabError(msg)

    @cached_property
    def _template(self) -> Template:
        return Template(self.template)

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
        encoded = [self._encoded(record) for record in records]
        kept = [(e, record) for e, record in zip(encoded, records, strict=True) if e.left_out is None]
        unread = set[str]().union(*(chat.unread(record, tokenizer=self.tokenizer) for record in records))
        left_out = [e.left_out for e in encoded]
        return EncodedRecords(
            examples=[Example(index=n, input_ids=e.ids, labels=e.labels) for n, (e, _) in enumerate(kept)],
            records=[record for _, record in kept],
            left_out=left_out,
            lengths=[e.length for e, _ in kept],
            summary=Summary(
                length=self.max_length,
                left_out=Counter(reason for reason in left_out if reason is not None),
                places=Summary.first_places(zip(left_out, (record.where for record in records), strict=True)),
                cut=sum(e.length > len(e.ids) for e, _ in kept),
                replaced=sum(record.replaced > 0 for record in records),
                unread=frozenset(unread),
                unused=frozenset(name for record in records for name in self._unused(record)),
                formats=Counter(record.format for record in records),
                dropped=sum(record.dropped > 0 for record in records),
            ),
        )

    def text(self, record: Record, /) -> str:
        """What the model reads of `record`, as people read it."""
        prompt, completion, _ = self._texts(record)
        return prompt + completion

    def completion(self, record: Record, /) -> str:
        """What is trained on."""
        return self._texts(record)[1]

    def prompt_ids(self, record: Record, /) -> list[int]:
        """The tokens before the completion; at least one, for generation to begin with."""
        prompt, _, specials = self._texts(record)
        begin = self.tokenizer.bos_token_id
        ids = [begin] * (specials and begin is not None) + self._tokens(prompt, record)
        return ids or [pad_id(self.tokenizer)]

    def _unused(self, record: Record) -> set[str]:
        """Return the fields of a record that are not part of its text."""
        named = self._template.names if record.prompt is not None else set[str]()
        return record.raw.keys() - record.used - named

    def _encoded(self, record: Record) -> Encoded:
        if (reason := _nothing_to_train(record)) is not None:
            return Encoded([], [], reason)
        prompt, completion, specials = self._texts(record)
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        before, after = self._tokens(prompt, record), self._tokens(completion, record)
        if specials:
            before = before if begin is None else [begin, *before]
            after = after if end is None else [*after, end]
        ids = (before + after)[: self.max_length]
        labels = ([IGNORE] * len(before) + after)[: self.max_length]
        if all(label == IGNORE for label in labels[1:]):
            return Encoded([], [], "long" if len(before) >= self.max_length else "untrained")
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
        return Encoded(ids, labels, None, len(before) + len(after))

    def _texts(self, record: Record) -> tuple[str, str, bool]:
        """Prompt, completion, and whether the special tokens of beginning and end are still to be added."""
        if record.messages:
            rendered = chat.render(record, tokenizer=self.tokenizer)
            return rendered.prompt, rendered.completion, not rendered.special
        if record.prompt is None:
            return "", record.completion, True
        named = self._template.names
        beside = [text for name, text in record.context.items() if name not in named]
        prompt = "\n".join(text for text in (record.prompt, *beside) if text)
        before, after = self._template.fill(record.raw, prompt=prompt, where=record.where)
        return before, record.completion + after, True

    def _tokens(self, text: str, record: Record) -> list[int]:
        if not text:
            return []
        try:
            # apart, so that no token straddles prompt and completion
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        except Exception as error:
            msg = f"{record.where}: the tokenizer cannot encode the text: {' '.join(str(error).split())}"
            raise LabError(msg) from None


def _nothing_to_train(record: Record) -> str | None:
    """Return why nothing of a record could be trained on, whatever the tokenizer."""
    last = record.messages[-1] if record.messages else None
    if last is not None and not trained(last):
        return "weight"
    if last is not None and last.get("tool_calls"):
        return None
    text = record.completion if last is None else last["content"]
    # white space, and characters of no width, are no answer
    return None if any(not c.isspace() and category(c) not in {"Cf", "Cc"} for c in text) else "empty"


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


def pad_id(tokenizer: Any, /) -> int:
    """The id that fills; any would do, since the mask covers it."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
