"""Rows of several documents each, separated where positions begin anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import entries
from .alignment import alignment
from .entries import IGNORE

__all__ = ["begins_anew", "document_starts", "in_one_row", "one_row_each"]


def document_starts(batch: Mapping[str, Any], /) -> torch.Tensor:
    """Return where a document begins after the first of its row (batch, time), as bool on the CPU.

    Where `seq_idx` changes; without it, where `position_ids` begin anew: they return to the smallest, or to the first,
    of the row. Other jumps of positions, and masked positions, begin nothing; positions that never increase tell of no
    document.
    """
    rows, time = entries.tokens(batch).shape[:2]
    starts = torch.zeros(rows, time, dtype=torch.bool)
    index, positions = batch.get("seq_idx"), batch.get("position_ids")
    if isinstance(index, torch.Tensor) and tuple(index.shape) == (rows, time):
        starts[:, 1:] = (index.diff() != 0).cpu()
        return starts
    if not isinstance(positions, torch.Tensor) or tuple(positions.shape) not in ((rows, time), (1, time)):
        return starts
    positions, real = positions.cpu().expand(rows, time), _real(batch)
    if not bool((positions.diff() > 0).any()):
        return starts
    smallest = positions.where(real, torch.iinfo(torch.int64).max).amin(1, keepdim=True)
    place = real.int().argmax(1, keepdim=True)
    returns = torch.zeros_like(starts)
    returns[:, 1:] = real[:, :-1] & (positions[:, 1:] <= positions[:, :-1])
    returns &= positions == positions.gather(1, place)
    return ((positions == smallest) | returns) & real & (torch.arange(time) > place)


def begins_anew(batch: Mapping[str, Any], /) -> bool:
    """Return whether any row holds several documents."""
    return bool(document_starts(batch).any())


def in_one_row(batch: Mapping[str, Any], /, *, shift: bool = True) -> Any:
    """Return a batch without a mask with its rows one after the other in a single row (1, batch * time).

    Positions or `seq_idx` separate the documents, as models read them without a mask. Where the loss shifts labels, the
    first of each is removed: the token before it is of another.

    Raises
    ------
    ValueError
        When an entry cannot be laid out so.
    """
    rows, time = entries.tokens(batch).shape[:2]
    laid: dict[str, Any] = {}
    for name, value in batch.items():
        of_tokens = isinstance(value, torch.Tensor) and not entries.is_media(name)
        if name == "position_ids" and of_tokens and value.shape[-1] == time and value.shape[-2] in (1, rows):
            laid[name] = value.expand(*value.shape[:-2], rows, time).flatten(-2).unsqueeze(-2)
        elif of_tokens and tuple(value.shape[:2]) == (rows, time):
            laid[name] = value.flatten(0, 1)[None]
        else:
            laid[name] = value
    if laid.get("seq_idx") is not None:
        index = batch["seq_idx"]
        more = torch.arange(rows, device=index.device)[:, None] * (int(index.max()) + 1)
        laid["seq_idx"] = (index + more.to(index.dtype)).flatten()[None]
    if shift and laid.get("labels") is not None:
        starts = document_starts(batch)
        starts[:, 0] = True
        laid["labels"] = laid["labels"].masked_fill(starts.flatten()[None].to(laid["labels"].device), IGNORE)
    return entries.same_kind(batch, laid)


def one_row_each(batch: Mapping[str, Any], /) -> Any:
    """Return a batch with a mask with each document in a padded row of its own: a mask separates no documents.

    Entries with one value a row have it for each document of the row. The collator's alignment stays.
    """
    rows, time = entries.tokens(batch).shape[:2]
    real, starts = _real(batch), document_starts(batch)
    spans: list[tuple[int, int, int]] = []
    for row in range(rows):
        columns = real[row].nonzero().flatten().tolist()
        if columns:
            begins = [columns[0], *starts[row].nonzero().flatten().tolist()]
            ends = [*begins[1:], columns[-1] + 1]
            spans += [(row, first, _end(real[row], first, last)) for first, last in zip(begins, ends, strict=True)]
    longest = max(last - first for _, first, last in spans)
    step = alignment(time, 0)
    width = longest + -longest % step
    row_of = torch.tensor([row for row, _, _ in spans])
    split: dict[str, Any] = {}
    for name, value in batch.items():
        if entries.is_shared(value):
            split[name] = value
        elif name == "position_ids":
            split[name] = _rows(value.expand(rows, time), spans, width, 0)
        elif isinstance(value, torch.Tensor) and not entries.is_media(name) and tuple(value.shape[:2]) == (rows, time):
            split[name] = _rows(value, spans, width, _filler(name, value, real))
        elif entries.is_one_each(name, value, rows):
            split[name] = entries.picked(value, 0, row_of)
        else:
            raise entries.refuse(name, value, rows, what="packed rows")
    return entries.same_kind(batch, split)


def _real(batch: Mapping[str, Any]) -> torch.Tensor:
    mask, first = batch.get("attention_mask"), entries.tokens(batch)
    return torch.ones(first.shape[:2], dtype=torch.bool) if mask is None else (mask != 0).cpu()


def _end(real: torch.Tensor, first: int, last: int) -> int:
    return first + int(real[first:last].nonzero().max()) + 1


def _filler(name: str, value: torch.Tensor, real: torch.Tensor) -> int:
    if name.endswith("labels"):
        return IGNORE
    if name == "input_ids" and not bool(real.all()):
        return int(value[(~real).to(value.device)][0])
    return 0


def _rows(value: torch.Tensor, spans: Sequence[tuple[int, int, int]], width: int, filler: int) -> torch.Tensor:
    rows = value.new_full((len(spans), width, *value.shape[2:]), filler)
    for place, (row, first, last) in enumerate(spans):
        rows[place, : last - first] = value[row, first:last]
    return rows
