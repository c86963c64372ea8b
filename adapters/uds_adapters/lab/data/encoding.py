"""Encoding of records: token ids, labels on the completion only, padded batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import jinja2
import torch

from ...batches import IGNORE
from ..errors import LabError
from .records import Record
from .source import DEFAULT_TEMPLATE

__all__ = ["Collator", "Encoder", "Example", "pad_id"]


class Example(TypedDict):
    """One sample; both lists have one entry a token."""

    index: int
    """Its place in the data set."""
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Makes examples of records.

    Parameters
    ----------
    tokenizer
        Of transformers.
    template
        How prompt and completion are joined; holds ``{prompt}`` and, after it, ``{completion}``. Messages go through
        the tokenizer's chat template, or through ``role: content`` lines where it has none.
    max_length
        Tokens after which an example is cut.
    context
        The most tokens that the model has positions for, where that is known; no example may have more.
    """

    tokenizer: Any
    template: str = DEFAULT_TEMPLATE
    max_length: int = 512
    context: int | None = None

    def __post_init__(self) -> None:
        head, found, _ = self.template.partition("{completion}")
        if not found or "{prompt}" not in head:
            msg = f"`template` must hold {{prompt}} and, after it, {{completion}}; got {self.template!r}"
            raise LabError(msg)
        if self.max_length < 2:
            msg = f"`max_length` must be at least 2 tokens, got {self.max_length}"
            raise LabError(msg)

    def __call__(self, records: Iterable[Record], /) -> tuple[list[Example], list[Record]]:
        """Examples, and the records they come from; left out are those whose prompt alone fills `max_length`.

        Raises
        ------
        LabError
            Where a record is longer than the model's context, or a chat template cannot be followed.
        """
        encoded = [(self._ids(record), record) for record in records]
        kept = [(ids, labels, record) for (ids, labels), record in encoded if any(t != IGNORE for t in labels[1:])]
        examples = [Example(index=n, input_ids=ids, labels=labels) for n, (ids, labels, _) in enumerate(kept)]
        return examples, [record for _, _, record in kept]

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
        ids = [begin] * (specials and begin is not None) + self._tokens(prompt)
        return ids or [pad_id(self.tokenizer)]

    def _ids(self, record: Record) -> tuple[list[int], list[int]]:
        prompt, completion, specials = self._texts(record)
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        before, after = self._tokens(prompt), self._tokens(completion)
        if specials:
            before = before if begin is None else [begin, *before]
            after = after if end is None else [*after, end]
        ids = (before + after)[: self.max_length]
        labels = ([IGNORE] * len(before) + after)[: self.max_length]
        if self.context is not None and len(ids) > self.context:
            msg = (
                f"{record.where}: a sample of {len(ids)} tokens, and the model has positions for {self.context}: cut "
                f"samples with `--max-length {self.context}`"
            )
            raise LabError(msg)
        return ids, labels

    def _texts(self, record: Record) -> tuple[str, str, bool]:
        """Prompt, completion, and whether the special tokens of beginning and end are still to be added."""
        if record.messages:
            return self._conversation(record)
        if not record.prompt:
            return "", record.completion, True
        head, _, tail = self.template.partition("{completion}")
        return head.replace("{prompt}", record.prompt), record.completion + tail, True

    def _conversation(self, record: Record) -> tuple[str, str, bool]:
        if self.tokenizer.chat_template is None:
            said = "".join(f"{turn['role']}: {turn['content']}\n" for turn in record.messages[:-1])
            return said + "assistant: ", record.messages[-1]["content"], True
        chat = self.tokenizer.apply_chat_template
        try:
            prompt = chat(list(record.messages[:-1]), tokenize=False, add_generation_prompt=True)
            whole = chat(list(record.messages), tokenize=False)
        except (jinja2.TemplateError, ValueError) as error:
            msg = f"{record.where}: the tokenizer's chat template refuses the conversation: {error}"
            raise LabError(msg) from None
        if not whole.startswith(prompt):
            msg = (
                f"{record.where}: the tokenizer's chat template does not continue the conversation without its last "
                "turn, so it is not known which words are the completion; give prompt and completion instead"
            )
            raise LabError(msg)
        return prompt, whole[len(prompt) :], False

    def _tokens(self, text: str) -> list[int]:
        # apart, so that no token straddles prompt and completion
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


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
