"""Packed and padding-free batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from . import entries
from .alignment import row_alignment
from .entries import IGNORE, Axes, Indexer
from .packed import document_starts

__all__ = ["DocumentView", "has_borders", "is_line"]

_ENDS = ("cu_seq_lens_q", "cu_seq_lens_k")  # where documents end, for attention kernels
_LONGEST = ("max_length_q", "max_length_k")

Border = tuple[int, int]
"""A document's first position, and the one after its last."""


def has_borders(batch: Mapping[str, Any], /) -> bool:
    """Return whether the batch has an entry that is there for documents alone."""
    return any(batch.get(name) is not None for name in (*_ENDS, "seq_idx"))


def is_line(batch: Mapping[str, Any], /) -> bool:
    """Return whether the batch is one row of documents, even of a single one.

    True when the batch has the documents' borders, or position ids without an attention mask, as transformers decides
    it.
    """
    rows, time = entries.tokens(batch).shape[:2]
    if rows != 1:
        return False
    positions = batch.get("position_ids")
    counts = isinstance(positions, torch.Tensor) and tuple(positions.shape) == (1, time)
    return has_borders(batch) or (counts and batch.get("attention_mask") is None)


class DocumentView:
    """A batch whose one row (1, time) holds documents one after the other; see `batches.SampleView`.

    The borders come from `cu_seq_lens_q`, or from `seq_idx`, or from `position_ids` that begin anew. Masked positions
    at the end are padding. Without a mask, so are single tokens at the end that repeat the last token and have no
    label, as `pad_to_multiple_of` leaves them, and documents of nothing else where positions alone separate them. (So
    a last document of one token is dropped: it has no loss.) A row with padding is aligned again after a choice.

    Parameters
    ----------
    batch
        Mapping of tensors (1, time, ...), and of lists with one entry a document.
    indexer
        ``indexer(batch, indices) -> batch``: takes documents out of batches with entries of another kind.
    borders
        First position and end of each document, when known already.
    shift
        As of `Layout`.
    """

    def __init__(
        self,
        batch: Mapping[str, Any],
        /,
        *,
        indexer: Indexer | None = None,
        borders: Sequence[Border] | None = None,
        shift: bool = True,
        beside: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.batch, self._indexer, self._shift = batch, indexer, shift
        self.given, self._time = batch, entries.tokens(batch).shape[1]
        self.beside = {} if beside is None else beside
        for name in ("attention_mask", "labels", "shift_labels"):
            entries.check_shape(name, batch.get(name), (1, self._time))
        self._tokens: torch.Tensor | None = None  # see `unread`
        self._borders = list(borders) if borders else _borders(batch)
        self._step = 1 if indexer else row_alignment(self._time, self._time - self._borders[-1][1])
        self._axes = {} if indexer else {name: self._axes_of(name, value) for name, value in batch.items()}

    def __len__(self) -> int:
        return len(self._borders)

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the model's forward."""
        return entries.inputs(self.batch)

    @property
    def labels(self) -> torch.Tensor | None:
        """Target of each row (batch, time), -100 for none; None without labels."""
        names = [name for name in ("labels", "shift_labels") if self.batch.get(name) is not None]
        return entries.targets({name: self._apart(self.batch[name], IGNORE) for name in names}, shift=self._shift)

    @property
    def mask(self) -> torch.Tensor:
        """True at the rows (batch, time) of a document."""
        lengths = torch.tensor(_lengths(self._borders))
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return mask.to(entries.tokens(self.batch).device)

    @property
    def tokens(self) -> torch.Tensor:
        """Number of rows with loss of each document (batch,); all rows without labels."""
        if self.labels is None:
            return torch.tensor(_lengths(self._borders))
        if self._tokens is None:
            self.bring(entries.on_host(self.unread()))
        assert self._tokens is not None
        return self._tokens

    def unread(self) -> dict[str, torch.Tensor]:
        """Return the number of rows with loss, on the batch's device."""
        return {} if self.labels is None else {"tokens": (self.labels != IGNORE).sum(1)}

    def bring(self, values: Mapping[str, torch.Tensor], /) -> None:
        """Take what `unread` named, on the host."""
        self._tokens = values.get("tokens")

    def arrange(self, x: torch.Tensor, /) -> torch.Tensor:
        """Return the model's output (1, positions, width) as (batch, time, width), zeros after a document's end.

        If there are more positions than the batch has, the last are used.
        """
        return self._apart(x[:, -self._time :], 0)

    def spread(self, values: torch.Tensor, /) -> torch.Tensor:
        """Return each document's value (batch,) at each of its tokens (1, time), zero at padding."""
        spread = values.new_zeros(1, self._time)
        for (first, last), value in zip(self._borders, values, strict=True):
            spread[0, first:last] = value
        return spread

    def take(self, indices: Any, /) -> Any:
        """Return a batch of the documents at `indices` (k,), in that order, with new borders.

        Raises
        ------
        ValueError, IndexError
            When `indices` are not indices of documents.
        """
        indices = entries.chosen(indices, len(self))
        if self._indexer is not None:
            return entries.indexed(self.batch, indices, self._indexer)
        taken, lengths = self._taken(indices)
        return entries.same_kind(self.batch, self._finished(taken, lengths, step=self._step))

    def _taken(self, indices: torch.Tensor) -> tuple[dict[str, Any], list[int]]:
        """Return the entries of the documents at `indices`, their borders not yet updated, and the lengths."""
        borders = [self._borders[i] for i in indices.tolist()]
        columns = torch.cat([torch.arange(*border) for border in borders])
        taken = {}
        for name, value in self.batch.items():
            samples, time = self._axes[name]
            taken[name] = entries.picked(entries.picked(value, time, columns), samples, indices)
        return taken, _lengths(borders)

    def _finished(self, taken: dict[str, Any], lengths: list[int], *, step: int) -> dict[str, Any]:
        """Return the entries with new borders, and with padding to a multiple of `step`, each token a document."""
        more = -sum(lengths) % step
        padded = {
            name: value if time is None or not more else _padded(name, value, time, more, last=self.batch[name])
            for (name, value), (_, time) in zip(taken.items(), (self._axes[name] for name in taken), strict=True)
        }
        return _with_borders(padded, [*lengths, *[1] * more])

    def split(self, size: int, /) -> list[DocumentView]:
        """Return views of at most `size` consecutive documents each."""
        views = []
        for part in torch.arange(len(self)).split(size):
            lengths = _lengths([self._borders[i] for i in part.tolist()])
            borders = None if self._indexer else _borders_of(lengths)
            beside = entries.of(self.beside, part)
            options: Any = {"indexer": self._indexer, "borders": borders, "shift": self._shift, "beside": beside}
            views.append(DocumentView(self.take(part), **options))
        return views

    @staticmethod
    def join(views: Sequence[DocumentView], /) -> Any:
        """Return one batch with the documents of all views, one after the other."""
        parts, lengths = zip(*(view._taken(torch.arange(len(view))) for view in views), strict=True)
        joined: dict[str, Any] = {}
        for name in views[0].batch:
            samples, time = views[0]._axes[name]
            values = [part[name] for part in parts]
            replaced = name in _ENDS or name in _LONGEST
            joined[name] = values[0] if replaced else entries.joined(name, values, samples if time is None else time)
        # a row without padding does not show its alignment, one with padding does
        steps = [view._step for view in views if all(other._time % view._step == 0 for other in views)]
        first, step = views[0], max(steps, default=1)
        joined = first._finished(joined, [length for some in lengths for length in some], step=step)
        return entries.same_kind(first.batch, joined)

    def _apart(self, x: torch.Tensor, filler: int) -> torch.Tensor:
        pieces = [x[0, first:last] for first, last in self._borders]
        return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=filler)

    def _axes_of(self, name: str, value: Any) -> Axes:
        if entries.is_shared(value) or name in _ENDS:
            return Axes()
        if isinstance(value, torch.Tensor) and not entries.is_media(name):
            if tuple(value.shape[:2]) == (1, self._time) and (
                self._time not in value.shape[2:] or name == "inputs_embeds"
            ):
                return Axes(None, 1)
            if name == "position_ids" and tuple(value.shape[-2:]) == (1, self._time):
                return Axes(None, value.ndim - 1)
        if entries.is_one_each(name, value, len(self)):
            return Axes(0)
        raise entries.refuse(name, value, len(self), what="documents")


def _borders(batch: Mapping[str, Any]) -> list[Border]:
    """Return the borders of the documents without padding at the end; there is always at least one."""
    tokens, mask = entries.tokens(batch)[0], batch.get("attention_mask")
    starts = _starts(batch, len(tokens))
    borders = [(first, last) for first, last in pairwise(starts) if first < last]
    if mask is not None:
        real = (mask != 0).flatten().tolist()
        end = max((place + 1 for place, here in enumerate(real) if here), default=1)
        return [(a, min(b, end)) for a, b in borders if any(real[a:b])] or borders[:1]
    idle = (tokens == tokens[-1]).reshape(len(tokens), -1).all(1)
    targets = [batch[name] for name in ("labels", "shift_labels") if batch.get(name) is not None]
    for target in targets:
        idle &= target[0] == IGNORE
    idle, only_positions = idle.tolist(), bool(targets) and not has_borders(batch)
    while len(borders) > 1 and all(idle[slice(*borders[-1])]):
        if borders[-1][1] - borders[-1][0] > 1 and not only_positions:
            break
        borders.pop()
    return borders


def _starts(batch: Mapping[str, Any], time: int) -> list[int]:
    """Return the first position of each document, and the end of the last one."""
    for name in _ENDS:
        if batch.get(name) is not None:
            return batch[name].tolist()
    return [0, *document_starts(batch)[0].nonzero().flatten().tolist(), time]


def _padded(name: str, value: torch.Tensor, axis: int, more: int, *, last: torch.Tensor) -> torch.Tensor:
    """Return an entry with `more` columns of padding: no label, and the last token of the row."""
    shape = list(value.shape)
    shape[axis] = more
    if name in ("input_ids", "inputs_embeds"):
        filling = last.narrow(axis, last.shape[axis] - 1, 1).expand(shape)
    else:
        filling = value.new_full(shape, IGNORE if name.endswith("labels") else 0)
    return torch.cat([value, filling], axis)


def _with_borders(batch: dict[str, Any], lengths: list[int]) -> dict[str, Any]:
    """Return the batch with the borders of its documents, in each form that the batch uses."""
    ends = torch.tensor([0, *lengths]).cumsum(0)
    for name in _ENDS:
        if batch.get(name) is not None:
            batch[name] = ends.to(batch[name])
    for name in _LONGEST:
        if batch.get(name) is not None:
            longest, given = max(lengths), batch[name]
            batch[name] = given.new_tensor(longest) if isinstance(given, torch.Tensor) else longest
    if batch.get("seq_idx") is not None:
        batch["seq_idx"] = (
            torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None].to(batch["seq_idx"])
        )
    return batch


def _lengths(borders: Sequence[Border]) -> list[int]:
    return [last - first for first, last in borders]


def _borders_of(lengths: Sequence[int]) -> list[Border]:
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    return list(pairwise(ends))
