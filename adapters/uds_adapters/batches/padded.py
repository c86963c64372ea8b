"""Padded batches, one sample per row."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import entries
from .alignment import aligned, alignment
from .entries import IGNORE, Axes, Indexer
from .layout import CAUSAL, Layout

__all__ = ["PaddedView"]

# entries with a column for each position: of the model that reads, and of a decoder
_READ = {"input_ids", "inputs_embeds", "attention_mask", "global_attention_mask", "token_type_ids", "seq_idx"}
_READ |= {"mm_token_type_ids", "special_tokens_mask", "completion_mask", "assistant_masks", "loss_mask"}
_WRITTEN = {"labels", "shift_labels", "decoder_input_ids", "decoder_inputs_embeds"}
_WRITTEN |= {"decoder_attention_mask", "decoder_position_ids"}
_BEYOND = (0, -1, 1)  # columns beside the positions: an entry may have one number a target, or one more than positions


class PaddedView:
    """A batch with one sample per row, padded on either side or not at all; see `batches.SampleView`.

    Parameters
    ----------
    batch
        Mapping of tensors (batch, time, ...), and of lists with one entry a sample.
    indexer
        ``indexer(batch, indices) -> batch``: takes samples out of batches with entries of another kind. What it
        returns is used as it is, untrimmed.
    layout
        Where samples and their targets are.
    beside
        Name -> numbers (batch, ...) of the samples that are the policy's, not the model's.
    """

    def __init__(
        self,
        batch: Mapping[str, Any],
        /,
        *,
        indexer: Indexer | None = None,
        layout: Layout = CAUSAL,
        beside: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        first = entries.tokens(batch)
        self.beside = {} if beside is None else beside
        self.batch, self._indexer, self._layout = batch, indexer, layout
        self.given = batch
        self._number, self._read = first.shape[:2]
        self._written = _decoder_time(batch) if layout.decoder else self._read
        for name in sorted(_READ | _WRITTEN):
            entries.check_shape(
                name, batch.get(name), (self._number, self._written if name in _WRITTEN else self._read)
            )
        self._axes = {} if indexer else {name: self._axes_of(name, value) for name, value in batch.items()}
        self._host: dict[str, torch.Tensor] = {}  # see `unread`

    def __len__(self) -> int:
        return self._number

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the model's forward."""
        return entries.inputs(self.batch)

    @property
    def labels(self) -> torch.Tensor | None:
        """Target of each row (batch, time), -100 for none; None where the batch has no labels."""
        return self._targets

    @functools.cached_property
    def _targets(self) -> torch.Tensor | None:
        return entries.targets(self.batch, shift=self._layout.shift)

    @property
    def mask(self) -> torch.Tensor | None:
        """True at rows (batch, time) that are not padding; None without an attention mask."""
        return self._is_there

    @functools.cached_property
    def _is_there(self) -> torch.Tensor | None:
        mask = self.batch.get("decoder_attention_mask" if self._layout.decoder else "attention_mask")
        return None if mask is None else mask != 0

    @property
    def tokens(self) -> torch.Tensor:
        """Number of rows with loss of each sample (batch,); without labels, of rows that are not padding."""
        if self.labels is None and self.mask is None:
            return torch.full((self._number,), self._written, dtype=torch.int64)
        return self._on_host("tokens")

    def unread(self) -> dict[str, torch.Tensor]:
        """Return the number of rows with loss, and the columns that are used, on the batch's device."""
        labels, wanted = self.labels, dict[str, torch.Tensor]()
        counted = self.mask if labels is None else labels != IGNORE
        if counted is not None:
            wanted["tokens"] = counted.sum(1)
        sides = (False, True) if self._layout.decoder else (False,)
        columns = {decoder: None if self._indexer else self._used(decoder=decoder) for decoder in sides}
        return wanted | {f"columns {side}": used for side, used in columns.items() if used is not None}

    def bring(self, values: Mapping[str, torch.Tensor], /) -> None:
        """Take what `unread` named, on the host."""
        self._host.update(values)

    def _on_host(self, name: str) -> torch.Tensor:
        if name not in self._host:
            self.bring(entries.on_host(self.unread()))
        return self._host[name]

    def arrange(self, x: torch.Tensor, /) -> torch.Tensor:
        """Return the model's output (batch, time, width), the last positions if there are more than the batch has."""
        return x[:, -self._written :]

    def spread(self, values: torch.Tensor, /) -> torch.Tensor:
        """Return each sample's value (batch,) at each of its label's positions (batch, time)."""
        return values[:, None].repeat(1, self._written)

    def take(self, indices: Any, /) -> Any:
        """Return a batch of the samples at `indices` (k,), in that order, without columns that are padding in all.

        The collator's alignment (`pad_to_multiple_of`) stays. Nothing is cut beside an unknown entry with about as many
        columns as there are positions.

        Raises
        ------
        ValueError, IndexError
            When `indices` are not indices of samples, or the `indexer` returned another number of them.
        """
        indices = entries.chosen(indices, self._number)
        if self._indexer is not None:
            return entries.indexed(self.batch, indices, self._indexer)
        read = self._columns(indices, decoder=False)
        written = self._columns(indices, decoder=True) if self._layout.decoder else read
        taken = {}
        for name, value in self.batch.items():
            samples, time = self._axes[name]
            first, last = written if name in _WRITTEN else read
            part = value if time is None else value.narrow(time, first, last - first)
            taken[name] = entries.picked(part, samples, indices)
        return entries.same_kind(self.batch, taken)

    def split(self, size: int, /) -> list[PaddedView]:
        """Return views of at most `size` consecutive samples each."""
        return [
            PaddedView(
                self.take(part), indexer=self._indexer, layout=self._layout, beside=entries.of(self.beside, part)
            )
            for part in torch.arange(self._number).split(size)
        ]

    @classmethod
    def join(cls, views: Sequence[PaddedView], /) -> Any:
        """Return one batch of the samples of all views, padded on the side of their padding."""
        if len({view._read for view in views}) > 1 and not any("attention_mask" in view.batch for view in views):
            views = [cls(_with_mask(view.batch), layout=view._layout) for view in views]
        return entries.same_kind(views[0].batch, {name: _joined(name, views) for name in views[0].batch})

    def _axes_of(self, name: str, value: Any) -> Axes:
        if entries.is_shared(value):
            return Axes()
        if name in _READ | _WRITTEN:
            return Axes(0, 1)
        if name == "position_ids" and isinstance(
            value, torch.Tensor
        ):  # (batch, time), or (1, time) for all rows, or several kinds (kinds, batch, time)
            if value.ndim > 1 and value.shape[-1] == self._read and value.shape[-2] in (1, self._number):
                return Axes(None if value.shape[-2] == 1 else value.ndim - 2, value.ndim - 1)
        elif entries.is_one_each(name, value, self._number) and not name.startswith("cu_seq"):
            return Axes(0)
        raise entries.refuse(name, value, self._number)

    def _beyond_time(self, name: str) -> int | None:
        """Return how many columns more than there are positions an unknown entry has, as one a target (-1)."""
        value = self.batch[name]
        if self._axes[name] != Axes(0) or not isinstance(value, torch.Tensor) or value.ndim < 2:
            return None
        return next((more for more in _BEYOND if value.shape[1] - more in (self._read, self._written)), None)

    def _may_have_time(self, name: str) -> bool:
        """Return whether an unknown entry has an axis of about as many columns as there are positions."""
        value = self.batch[name]
        if self._axes[name] != Axes(0) or not isinstance(value, torch.Tensor):
            return False
        times = {time + more for time in (self._read, self._written) for more in _BEYOND}
        return any(size in times for size in value.shape[1:])

    def _columns(self, indices: torch.Tensor, *, decoder: bool) -> tuple[int, int]:
        """Return the first column and the end of those with a token or a target of one of the samples, aligned."""
        width = self._written if decoder else self._read
        if f"columns {decoder}" not in self._host and self._used(decoder=decoder) is None:
            return 0, width
        mask = self.batch.get("decoder_attention_mask" if decoder else "attention_mask")
        used = self._on_host(f"columns {decoder}")
        first, last = _span(used, from_left=mask is not None)
        step = alignment(width, width - (last - first))
        return aligned(*_span(used[indices], from_left=mask is not None), width, step)

    def _used(self, *, decoder: bool) -> torch.Tensor | None:
        """Return the columns (batch, time) with a token or a target; None where it is not known which may be cut."""
        mask = self.batch.get("decoder_attention_mask" if decoder else "attention_mask")
        marks = [] if mask is None else [mask != 0]
        if decoder or (not self._layout.decoder and mask is not None):
            known = (self.batch.get("labels"), self.labels)
            marks += [target != IGNORE for target in known if target is not None]
        if not marks or any(self._may_have_time(name) for name in self.batch):
            return None  # the padding is unknown, or trimming could cut numbers that are no columns
        return torch.stack([mark.to(marks[0].device) for mark in marks]).any(0)


def _span(used: torch.Tensor, *, from_left: bool) -> tuple[int, int]:
    columns = used.any(0).nonzero().flatten().tolist() or [0]
    return (columns[0] if from_left else 0), columns[-1] + 1


def _decoder_time(batch: Mapping[str, Any]) -> int:
    names = ("labels", "decoder_input_ids", "decoder_inputs_embeds")
    first = next((batch[name] for name in names if batch.get(name) is not None), None)
    if first is None:
        msg = f"`batch` of an encoder-decoder model needs one of {', '.join(names)}; it has {sorted(batch)}"
        raise ValueError(msg)
    return first.shape[1]


def _with_mask(batch: Mapping[str, Any]) -> Any:
    # the joined batch is padded, so it needs a mask
    first = entries.tokens(batch)
    mask = torch.ones(first.shape[:2], dtype=torch.int64, device=first.device)
    return entries.same_kind(batch, {**batch, "attention_mask": mask})


def _joined(name: str, views: Sequence[PaddedView]) -> Any:
    values = [view.batch[name] for view in views]
    axes = views[0]._axes[name]
    if name == "position_ids" and axes.time is not None:
        values = [value.expand(*value.shape[:-2], len(view), -1) for value, view in zip(values, views, strict=True)]
        axes = Axes(values[0].ndim - 2, values[0].ndim - 1)
    elif axes == Axes(0):
        beyond = {view._beyond_time(name) for view in views}
        if len(beyond) == 1 and None not in beyond:
            axes = Axes(0, 1)
    if axes.time is not None:
        values = _padded(name, values, axes.time, views)
    return entries.joined(name, values, axes.samples)


def _padded(name: str, values: Sequence[torch.Tensor], axis: int, views: Sequence[PaddedView]) -> list[torch.Tensor]:
    """Return the values padded to the longest, on the side where the batches are padded."""
    left = any(_pads_left(view, decoder=name in _WRITTEN and view._layout.decoder) for view in views)
    filler = IGNORE if name.endswith("labels") else _pad_id(name, views)
    longest = max(value.shape[axis] for value in values)
    padded = []
    for value in values:
        shape = list(value.shape)
        shape[axis] = longest - shape[axis]
        filling = value.new_full(shape, filler)
        padded.append(torch.cat([filling, value] if left else [value, filling], axis))
    return padded


def _pads_left(view: PaddedView, *, decoder: bool) -> bool:
    mask = view.batch.get("decoder_attention_mask" if decoder else "attention_mask")
    if decoder and mask is None and view.labels is not None:
        mask = view.labels != IGNORE
    return mask is not None and bool((mask[:, 0] == 0).any()) and bool((mask[:, -1] != 0).all())


def _pad_id(name: str, views: Sequence[PaddedView]) -> int:
    # the mask covers it, but some models look for the token
    if name == "input_ids":
        for view in views:
            mask = view.batch.get("attention_mask")
            if mask is not None and bool((mask == 0).any()):
                return int(view.batch[name][mask == 0][0])
    return 0
