"""Spans of the answers in the text of a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import LabError
from .messages import Turn, says_something, trained

__all__ = [
    "THOUGHT",
    "TRAIN_ON",
    "Span",
    "check_train_on",
    "has_marks",
    "located",
    "marked",
    "thinking",
    "trained_places",
    "training_template",
]

TRAIN_ON = ("last", "all")
"""Which answers of a conversation are trained on."""

THOUGHT = "</think>"
"""Ends the thinking of an answer, in R1, Qwen3 and others."""

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PRIVATE = range(0xE000, 0xF8FF)  # characters that mean nothing
_REASONING = ("reasoning_content", "reasoning", "thinking")


class Span(NamedTuple):
    """Characters of a text that carry loss."""

    start: int
    end: int


def check_train_on(value: str, /) -> None:
    """Raise an error if `value` is none of `TRAIN_ON`."""
    if value not in TRAIN_ON:
        msg = f"`train_on` must be {' or '.join(TRAIN_ON)}, got {value!r}"
        raise LabError(msg)


def trained_places(turns: Sequence[Turn], train_on: str, /) -> list[int]:
    """Return the indices of the messages that are trained on: the assistant's, neither empty nor of weight 0."""
    places = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    asked = places if train_on == "all" else places[-1:]
    return [place for place in asked if trained(turns[place]) and says_something(turns[place])]


def has_marks(template: str, /) -> bool:
    """Return whether a chat template marks what the assistant says, by ``{% generation %}``."""
    return _MARKS.search(template) is not None


def training_template(tokenizer: Any, /) -> str | None:
    """Return TRL's form of the chat template, which marks answers and keeps their thinking; None: TRL has none.

    TRL knows the templates of the common families, and trains with them in place of the tokenizer's.
    """
    try:
        from trl.chat_template_utils import get_training_chat_template

        return get_training_chat_template(tokenizer)
    except (ImportError, ValueError, TypeError, KeyError):
        return None
    except Exception:  # it renders a conversation, and a template is a program, which may raise anything
        return None


def marked(
    turns: Sequence[Turn], /, *, template: str, tools: Sequence[Mapping[str, Any]], tokenizer: Any
) -> tuple[str, list[Span]]:
    """Return the text of a conversation, and what of it the chat template marks."""
    from transformers.utils import chat_template_utils

    render: Any = chat_template_utils.render_jinja_template
    (text,), (spans,) = render(
        conversations=[list(turns)],
        tools=list(tools) or None,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return text, [Span(start, end) for start, end in spans if start < end]


def located(
    turns: Sequence[Turn], place: int, /, *, whole: str, chat: Callable[..., str], tokenizer: Any
) -> Span | None:
    """Return where the message at `place` stands in `whole`, the end of its turn included; None: this is not known.

    The answer is what follows the conversation before it, rendered with a generation prompt. Where the two differ
    within that generation prompt, as in templates that begin it with a thought, it starts where they do, as in TRL.
    Templates that show earlier turns otherwise than the last (they cut thinking out) are rendered once more with other
    words in the place of the message: what differs is the message.

    Parameters
    ----------
    turns
        The conversation.
    place
        Of a message of the assistant.
    whole
        The text of the conversation.
    chat
        Renders messages, with ``add_generation_prompt=True`` before an answer.
    """
    try:
        found = _after_prefix(turns, place, whole=whole, chat=chat, tokenizer=tokenizer) if place else None
    except Exception:  # the beginning of a conversation may be none that the template takes
        found = None
    return _replaced(turns, place, whole=whole, chat=chat) if found is None else found


def thinking(turn: Turn, /) -> str:
    """Return the thinking of an answer, as between the tags ``<think>`` of R1 and Qwen3; empty: it has none."""
    for name in _REASONING:
        if isinstance(turn.get(name), str):
            return turn[name].strip()
    before, tag, _ = (turn["content"] or "").partition(THOUGHT)
    return before.strip().removeprefix("<think>").strip() if tag else ""


def _after_prefix(
    turns: Sequence[Turn], place: int, *, whole: str, chat: Callable[..., str], tokenizer: Any
) -> Span | None:
    before = chat(turns[:place], add_generation_prompt=True)
    start = len(before)
    if not whole.startswith(before):
        base = chat(turns[:place])
        if not (base and whole.startswith(base)):
            return None
        start = _boundary(whole, _common(before, whole), tokenizer)
    if place == len(turns) - 1:
        return Span(start, len(whole)) if start < len(whole) else None
    through = chat(turns[: place + 1])
    return Span(start, len(through)) if whole.startswith(through) and start < len(through) else None


def _boundary(text: str, place: int, tokenizer: Any) -> int:
    """Return the last boundary of tokens in `text` that is not after `place`."""
    if not getattr(tokenizer, "is_fast", False):
        return place
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return max((end for _, end in offsets if end <= place), default=0)


def _replaced(turns: Sequence[Turn], place: int, *, whole: str, chat: Callable[..., str]) -> Span | None:
    mark = next(chr(code) for code in _PRIVATE if chr(code) not in whole)
    turn = {name: value for name, value in turns[place].items() if name not in ("tool_calls", *_REASONING)}
    turn["content"] = mark if not isinstance(turn["content"], list) else [{"type": "text", "text": mark}]
    other = chat([*turns[:place], turn, *turns[place + 1 :]])
    if mark not in other:
        return None
    start = _common(whole, other)
    end = len(whole) - _common(whole[start:][::-1], other[start:][::-1])
    if start >= end:
        return None
    if place == len(turns) - 1:
        return Span(start, len(whole))
    _, _, closing = chat([*turns[:place], turn]).partition(mark)
    ending = (len(text) for text in (closing, closing.rstrip()) if whole.startswith(text, end))
    return Span(start, end + next(ending, 0))


def _common(a: str, b: str) -> int:
    """Return how many characters two texts have in common at their beginnings."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
