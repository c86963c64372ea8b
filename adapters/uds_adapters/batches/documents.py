"""Packed and padding-free batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from . import entries
from .entries import IGNORE, Axes, Indexer

__all__ = ["DocumentView", "holds_documents"]

_ENDS = ("cu_seq_lens_q", "cu_seq_lens_k")  # where documents end, for attention kernels
_LONGEST = ("max_length_q", "max_length_k")

Border = tuple[int, int]
"""A document's first position, and the one after its last."""


def holds_documents(batch: Mapping[str, Any], /) -> bool:
    """Return whether the batch is one row of documents, even of a single one.

    True when the batch has the documents' borders, or position ids without an attention mask, as transformers decides
    it. With a mask: when the position ids restart.
    """
    rows, time = entries.tokens(batch).shape[:2]
    if rows != 1:
        return False
    if any(batch.get(name) is not None for name in (*_ENDS, "seq_idx")):
        return True
    if not _counts(batch.get("position_ids"), time):
        return False
    return batch.get("attention_mask") is None or len(_borders(batch)) > 1


class DocumentView:
    """A batch whose one row (1, time) holds documents one after the other; see `batches.SampleView`.

    The borders come from `cu_seq_lens_q`, or from `position_ids` that do not increase by one, or from `seq_idx`. Masked
    positions at the end are padding. Without a mask, so are single tokens at the end that repeat the last token and
    have no label, as `pad_to_multiple_of` leaves them. (So a last document of one token is dropped: it has no loss.)

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
        self._time = entries.tokens(batch).shape[1]
        self.beside = {} if beside is None else beside
        for name in ("attention_mask", "labels", "shift_labels"):
            entries.check_shape(name, batch.get(name), (1, self._time))
        self._borders = list(borders) if borders else _borders(batch)
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
        return (self.labels != IGNORE).sum(1).cpu()

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
        borders = [self._borders[i] for i in indices.tolist()]
        columns = torch.cat([torch.arange(*border) for border in borders])
        taken = {}
        for name, value in self.batch.items():
            samples, time = self._axes[name]
            taken[name] = entries.picked(entries.picked(value, time, columns), samples, indices)
        return entries.same_kind(self.batch, _with_borders(taken, _lengths(borders)))

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
        parts = [view.take(range(len(view))) for view in views]
        joined = {}
        for name in views[0].batch:
            samples, time = views[0]._axes[name]
            values = [part[name] for part in parts]
            replaced = name in _ENDS or name in _LONGEST
            joined[name] = values[0] if replaced else entries.joined(name, values, samples if time is None else time)
        lengths = [length for view in views for length in _lengths(view._borders)]
        return entries.same_kind(views[0].batch, _with_borders(joined, lengths))

    def _apart(self, x: torch.Tensor, filler: int) -> torch.Tensor:
        pieces = [x[0, first:last] for first, last in self._borders]
        return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=filler)

    def _axes_of(self, name: str, value: Any) -> Axes:
        if entries.is_shared(value) or name in _ENDS:
            return Axes()
        if isinstance(value, torch.Tensor) and not entries.is_media(name):
            if tuple(value.shape[:2]) == (1, self._time):
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
    for name in ("labels", "shift_labels"):
        if batch.get(name) is not None:
            idle &= batch[name][0] == IGNORE
    idle = idle.tolist()
    while len(borders) > 1 and borders[-1][1] - borders[-1][0] == 1 and idle[borders[-1][0]]:
        borders.pop()
    return borders


def _starts(batch: Mapping[str, Any], time: int) -> list[int]:
    """Return the first position of each document, and the end of the last one."""
    for name in _ENDS:
        if batch.get(name) is not None:
            return batch[name].tolist()
    positions: Any = batch.get("position_ids")
    continues = positions[0].diff() == 1 if _counts(positions, time) else batch["seq_idx"][0].diff() == 0
    return [0, *((~continues).nonzero().flatten() + 1).tolist(), time]


def _counts(positions: Any, time: int) -> bool:
    """Return whether position ids are one number for each token, not several kinds of them."""
    return isinstance(positions, torch.Tensor) and tuple(positions.shape) == (1, time)


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
