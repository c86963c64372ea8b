"""Multiple-choice accuracy by likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..data.encoding import Collator, Encoder
from ..data.records import Record
from ..errors import LabError
from .heldout import Likelihood

__all__ = ["MultipleChoice"]


class MultipleChoice:
    """Whether the right choice has the lowest mean negative log-likelihood per token.

    The mean, and not the sum, by which short choices would win; it is the loss that is trained. Tokens of the end of a
    completion count, as in training. Where two choices tie, the answer is wrong.

    Parameters
    ----------
    records
        Each with `choices`, the completion among them.
    encoder, collator
        As for training: each choice takes the completion's place.

    Raises
    ------
    LabError
        Where a record has no choices, or its completion is not among them, or one cannot be encoded.
    """

    def __init__(self, records: Sequence[Record], /, *, encoder: Encoder, collator: Collator) -> None:
        self._right = [_right(record) for record in records]
        self._sizes = [len(record.choices) for record in records]
        offered = [_answered(record, choice) for record in records for choice in record.choices]
        encoder = replace(encoder, train_on="last")  # the choice alone, not answers before it
        encoded = encoder.encode(offered)
        if len(encoded.records) < len(offered):
            place = next(place for place, reason in enumerate(encoded.left_out) if reason is not None)
            msg = (
                f"{offered[place].where}: the choice {_completion(offered[place])!r} has no token within "
                f"`max_length` = {encoder.max_length}: raise it, or mend the record"
            )
            raise LabError(msg)
        self._likelihood = Likelihood(encoded.examples, collator=collator)

    def __call__(self, model: Any, /) -> list[bool]:
        """Of each record, whether `model` is right."""
        sums = self._likelihood(model)
        means = iter([total / tokens for total, tokens in zip(sums, self._likelihood.tokens, strict=True)])
        found = []
        for right, size in zip(self._right, self._sizes, strict=True):
            losses = [next(means) for _ in range(size)]
            found.append(all(losses[right] < loss for place, loss in enumerate(losses) if place != right))
        return found


def _right(record: Record) -> int:
    if len(record.choices) < 2:
        msg = (
            f"{record.where}: `--metric accuracy` needs at least two choices, a list of strings, in every held-out "
            f"record; this one has {len(record.choices)}. Name their field with `--choices-field`"
        )
        raise LabError(msg)
    if _completion(record) not in record.choices:
        msg = f"{record.where}: the completion {_completion(record)!r} is none of the choices {list(record.choices)}"
        raise LabError(msg)
    if len(set(record.choices)) < len(record.choices):
        msg = f"{record.where}: a choice comes twice in {list(record.choices)}"
        raise LabError(msg)
    return record.choices.index(_completion(record))


def _completion(record: Record) -> str:
    return record.messages[-1]["content"] if record.messages else record.completion


def _answered(record: Record, choice: str) -> Record:
    if record.messages:
        return replace(record, messages=(*record.messages[:-1], {**record.messages[-1], "content": choice}))
    return replace(record, completion=choice)
