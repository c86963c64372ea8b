"""Records as text, with the characters that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .answers import Span, check_train_on, trained_places
from .chat import Chat, Rendered
from .messages import is_blank, trained
from .records import Record
from .template import DEFAULT_TEMPLATE, Template

__all__ = ["Renderer"]

_MARK = "\ue000"  # in no record: in the place of the prompt, to find it in the text


@dataclass(frozen=True)
class Renderer:
    """Makes texts of records.

    Parameters
    ----------
    tokenizer
        Of transformers; messages go through its chat template, or through ``role: content`` lines where it has none.
    template
        How prompt and completion are joined; see `Template`.
    train_on
        ``last`` or ``all``: of a conversation, the last answer carries loss, or all answers.

    Raises
    ------
    LabError
        If one of them is invalid.
    """

    tokenizer: Any
    template: str = DEFAULT_TEMPLATE
    train_on: str = "last"

    def __post_init__(self) -> None:
        _ = self.parsed
        check_train_on(self.train_on)

    @cached_property
    def parsed(self) -> Template:
        """The template of prompt and completion."""
        return Template(self.template)

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.tokenizer, self.train_on)

    def __call__(self, record: Record, /) -> Rendered:
        """Return the text of a record, whatever its length.

        Raises
        ------
        LabError
            If the chat template or the template fails.
        """
        if record.messages:
            return self._chat(record)
        if record.prompt is None:
            return Rendered("", record.completion, special=False, spans=(Span(0, len(record.completion)),))
        beside = [text for name, text in record.context.items() if name not in self.parsed.names]
        earlier, spans = _earlier(record)
        prompt = earlier + "\n".join(text for text in (record.prompt, *beside) if text)
        before, after = self.parsed.fill(record.raw, prompt=prompt, where=record.where)
        if spans:
            start = self.parsed.fill(record.raw, prompt=_MARK, where=record.where)[0].index(_MARK)
            spans = [Span(start + span.start, start + span.end) for span in spans if self.train_on == "all"]
        last = Span(len(before), len(before) + len(record.completion) + len(after))
        return Rendered(before, record.completion + after, special=False, spans=(*spans, last))

    def left_out(self, record: Record, /) -> str | None:
        """Return why nothing of a record can be trained on, whatever the tokenizer; of `REASONS`, or None."""
        if not record.messages:
            earlier = [answer for _, answer in record.history] if self.train_on == "all" else []
            return "empty" if all(map(is_blank, (record.completion, *earlier))) else None
        if trained_places(record.messages, self.train_on):
            return None
        answers = [turn for turn in record.messages if turn["role"] == "assistant"]
        if self.train_on == "last":
            return "empty" if trained(answers[-1]) else "weight"
        return "empty" if any(map(trained, answers)) else "weights"


def _earlier(record: Record) -> tuple[str, Sequence[Span]]:
    """Return the text before a prompt, its system text and earlier turns, and where the answers of those stand."""
    text, spans = f"{record.system}\n" if record.system else "", list[Span]()
    for prompt, answer in record.history:
        start = len(text) + len(prompt) + 1 if prompt else len(text)
        spans += [Span(start, start + len(answer))] if answer else []
        text += "".join(f"{part}\n" for part in (prompt, answer) if part)
    return text, spans
