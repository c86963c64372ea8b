"""Conversations as text: through the chat template of a tokenizer, or as plain lines where it has none."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from ..errors import LabError
from .answers import THOUGHT, Span, has_marks, located, marked, thinking, trained_places, training_template
from .calls_as_text import as_json, in_words, spoken, tools_in_words
from .messages import Turn
from .records import Record

__all__ = ["Chat", "Rendered", "render", "unread"]

_ALWAYS_READ = frozenset({"role", "content", "tool_calls", "weight", "loss_weight"})
_WORD = re.compile(r"\w+")


class Rendered(NamedTuple):
    """A record as text."""

    prompt: str
    completion: str  # from the last answer on
    special: bool  # whether the text has its special tokens already
    spans: tuple[Span, ...]  # of prompt and completion together: what carries loss
    cut: bool = False  # whether the chat template leaves thinking out of what is trained on
    in_words: bool = False  # whether tools or calls are text, for the chat template does not show them


@dataclass(frozen=True)
class Chat:
    """Renders conversations.

    Parameters
    ----------
    tokenizer
        With a chat template, or without.
    train_on
        ``last`` or ``all``: the last answer carries loss, or all of the assistant's messages.
    """

    tokenizer: Any
    train_on: str = "last"

    @cached_property
    def _training(self) -> str | None:
        """Return TRL's form of the chat template."""
        return training_template(self.tokenizer)

    def __call__(self, record: Record, /) -> Rendered:
        """Return the text of a conversation, in two parts: up to the assistant's last message, and from there on.

        Chat templates differ in what they expect of a message: content as text or in parts, and with tool calls
        arguments as an object or as JSON, no content as an empty text or as null. The first of these is taken that
        shows every answer, and every call with its arguments. Where none does, calls are part of the assistant's text,
        as they are without a template; so are tools of the system text where the template does not read them.

        Raises
        ------
        LabError
            If the chat template fails, or does not show where an answer begins and ends.
        """
        if not self.tokenizer.chat_template:
            return _plain(record, self.train_on)
        silent = bool(record.tools) and "tools" not in _read_by(self.tokenizer)
        found = "" if silent else self._first_shown(record)
        if isinstance(found, Rendered):
            return found
        calls = any(turn.get("tool_calls") for turn in record.messages)
        for other in in_words(record, tools=silent) if silent or calls else ():
            rendered = self._first_shown(other)
            if isinstance(rendered, Rendered):
                return rendered._replace(in_words=True)
            found = found or rendered
        msg = f"{record.where}: {found}"
        raise LabError(msg)

    def _first_shown(self, record: Record) -> Rendered | str:
        """Return the first variant of a conversation that the template shows whole; or why it shows none."""
        failed: str | None = None
        for turns in _variants(record.messages):
            try:
                rendered = self._rendered(turns, record)
                missing = _dropped(turns, record, self.tokenizer)
            except Exception as error:  # a template is a program, which may raise anything
                failed = failed or f"the tokenizer's chat template refuses the conversation: {_words(error)}"
                continue
            if missing is not None:
                failed = failed or f"the tokenizer's chat template does not show the tool call {missing!r}"
            elif rendered is not None:
                return rendered
            else:
                failed = failed or (
                    "the tokenizer's chat template does not show the words of an answer, or not where they begin and "
                    "end; give prompt and completion instead"
                )
        return failed or "the tokenizer's chat template shows nothing"

    def _rendered(self, turns: Sequence[Turn], record: Record) -> Rendered | None:
        """Return the text with the spans of what is trained on; None: they are not known."""
        template = self.tokenizer.get_chat_template(None, list(record.tools) or None)
        if self.train_on == "last":
            found = self._by_prefixes(turns, record, template)
            if found is None or not found.cut or self._training is None:
                return found
            return self._by_prefixes(turns, record, self._training) or found
        marks = template if has_marks(template) else self._training
        found = None if marks is None else self._by_marks(turns, record, marks)
        return self._by_prefixes(turns, record, template) if found is None else found

    def _by_marks(self, turns: Sequence[Turn], record: Record, template: str) -> Rendered | None:
        answers = trained_places(record.messages, "all")
        text, spans = marked(turns, template=template, tools=record.tools, tokenizer=self.tokenizer)
        every = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not spans or (len(spans) != len(every) and len(answers) != len(every)):
            return None  # which of them has weight 0 is not known
        kept = [spans[every.index(place)] for place in answers] if len(spans) == len(every) else spans
        return _of(text, kept, [record.messages[place] for place in answers], start=spans[-1].start)

    def _by_prefixes(self, turns: Sequence[Turn], record: Record, template: str) -> Rendered | None:
        def chat(some: Sequence[Turn], **more: Any) -> str:
            return _chat(some, record, self.tokenizer, chat_template=template, **more)

        whole = chat(turns)
        places = trained_places(record.messages, self.train_on)
        spans = [located(turns, p, whole=whole, chat=chat, tokenizer=self.tokenizer) for p in places]
        known = [span for span in spans if span is not None]
        if len(known) < len(places):
            return None
        last = len(turns) - 1
        own = known[-1] if places and places[-1] == last else None
        own = own or located(turns, last, whole=whole, chat=chat, tokenizer=self.tokenizer)
        return None if own is None else _of(whole, known, [record.messages[p] for p in places], start=own.start)


def render(record: Record, /, *, tokenizer: Any, train_on: str = "last") -> Rendered:
    """Return the text of a conversation; see `Chat`."""
    return Chat(tokenizer, train_on)(record)


def unread(record: Record, /, *, tokenizer: Any) -> set[str]:
    """Return the keys of messages that the chat template does not read."""
    names = {name for turn in record.messages for name in turn} - _ALWAYS_READ
    return names - _read_by(tokenizer) if tokenizer.chat_template else names


def _read_by(tokenizer: Any) -> frozenset[str]:
    template = tokenizer.chat_template
    return _named(" ".join(template.values()) if isinstance(template, dict) else template)


@lru_cache(maxsize=8)
def _named(source: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", source))


def _of(text: str, spans: Sequence[Span], turns: Sequence[Turn], *, start: int) -> Rendered | None:
    """Return the text with the spans of the messages `turns`; None: it does not show them.

    The last answer begins at `start`.
    """
    shown = "".join(text[span.start : span.end] for span in spans)
    first = (_WORD.search((turn["content"] or "").rpartition(THOUGHT)[2]) for turn in turns)
    if any(word is not None and word[0] not in shown for word in first):
        return None
    cut = any(thinking(turn) not in shown for turn in turns)
    return Rendered(text[:start], text[start:], special=True, spans=tuple(spans), cut=cut)


def _chat(turns: Sequence[Turn], record: Record, tokenizer: Any, **more: Any) -> str:
    return tokenizer.apply_chat_template(list(turns), tools=list(record.tools) or None, tokenize=False, **more)


def _variants(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    if not any(turn.get("tool_calls") for turn in turns):
        yield turns
    else:
        for empty, as_text in itertools.product(("", None), (False, True)):
            yield [_called(turn, empty=empty, as_text=as_text) if turn.get("tool_calls") else turn for turn in turns]
    yield [{**turn, "content": [{"type": "text", "text": turn["content"] or ""}]} for turn in turns]


def _called(turn: Turn, *, empty: str | None, as_text: bool) -> Turn:
    calls = turn["tool_calls"]
    if as_text:
        calls = [{**c, "function": {**c["function"], "arguments": as_json(c["function"]["arguments"])}} for c in calls]
    return {**turn, "content": turn["content"] or empty, "tool_calls": calls}


def _dropped(turns: Sequence[Turn], record: Record, tokenizer: Any) -> str | None:
    """Return the name of a tool call that the template does not show, or not as JSON; None: it shows them all."""
    for place, turn in enumerate(turns):
        if not turn.get("tool_calls"):
            continue
        before = _chat(turns[:place], record, tokenizer) if place else ""
        text = _chat(turns[: place + 1], record, tokenizer)
        text = text.removeprefix(before)  # which names the tools, and maybe calls of the same
        for call in record.messages[place]["tool_calls"]:
            if not _shows(text, call["function"]["name"], call["function"]["arguments"]):
                return call["function"]["name"]
    return None


def _shows(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    wrong = {repr(arguments), json.dumps(as_json(arguments)), json.dumps(json.dumps(arguments))}
    wrong -= {as_json(arguments), json.dumps(arguments)}
    keys = all(key in text or json.dumps(key)[1:-1] in text for key in arguments)
    return name in text and keys and not any(one in text for one in wrong)


def _plain(record: Record, train_on: str) -> Rendered:
    text = f"{tools_in_words(record)}\n" if record.tools else ""
    places, spans, last = trained_places(record.messages, train_on), [], len(record.messages) - 1
    for place, turn in enumerate(record.messages):
        text += f"{'assistant' if place == last else turn['role']}: "
        start, text = len(text), text + spoken(turn)
        if place in places:
            spans.append(Span(start, len(text)))
        if place == last:
            return Rendered(text[:start], text[start:], special=False, spans=tuple(spans))
        text += "\n"
    raise AssertionError


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
