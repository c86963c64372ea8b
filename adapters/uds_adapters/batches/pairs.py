"""Batches whose samples are several sequences each, such as pairs of a chosen and a rejected answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from . import entries
from .entries import IGNORE, Indexer
from .layout import Layout
from .padded import PaddedView

__all__ = ["PairView"]


class PairView:
    """A batch of the first sequence of every sample, then the second of every sample; see `batches.SampleView`.

    So TRL's preference collators return it: all chosen, then all rejected. The rows of a sample are those of its
    sequences one after the other, without padding. Without `labels`, they are the tokens of the `completion_mask`.

    Parameters
    ----------
    batch
        Mapping of tensors (sequences * samples, time, ...), and of tensors and lists with one entry for each sample.
    indexer
        ``indexer(batch, indices) -> batch``: takes samples, with all of their sequences.
    layout
        Where samples and their targets are.
    beside
        Name -> numbers (batch, ...) of the samples that are the policy's, not the model's.

    Raises
    ------
    ValueError
        When the number of sequences is no multiple of that of a sample.
    """

    def __init__(
        self,
        batch: Mapping[str, Any],
        /,
        *,
        layout: Layout,
        indexer: Indexer | None = None,
        beside: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.batch = self.given = batch
        self._indexer, self._layout = indexer, layout
        self.beside = {} if beside is None else beside
        total = entries.tokens(batch).shape[0]
        self._number, rest = divmod(total, layout.sequences)
        if rest:
            msg = (
                f"`batch` has {total} sequences, which is no multiple of the {layout.sequences} of a sample: the "
                "collator must return the first sequence of every example, then the second of every example"
            )
            raise ValueError(msg)
        self._apart = {} if indexer else {name: value for name, value in batch.items() if self._is_apart(name, value)}
        together = {name: value for name, value in batch.items() if name not in self._apart}
        self._tokens: torch.Tensor | None = None  # see `unread`
        self._sequences = PaddedView(together, indexer=indexer, layout=layout._replace(sequences=1))

    def __len__(self) -> int:
        return self._number

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the model's forward."""
        return self._sequences.inputs

    @property
    def labels(self) -> torch.Tensor | None:
        """Target of each row (batch, time), -100 for none; None without labels and completion mask."""
        targets = self._sequences.labels
        if targets is None and self.batch.get("completion_mask") is not None:
            tokens = entries.tokens(self.batch)
            labels = tokens.masked_fill(self.batch["completion_mask"] == 0, IGNORE)
            targets = entries.targets({"labels": labels}, shift=self._layout.shift)
        return None if targets is None else self._in_rows(targets[..., None], IGNORE)[..., 0]

    @property
    def mask(self) -> torch.Tensor:
        """True at the rows (batch, time) of a sample."""
        return self._places[1]

    @property
    def tokens(self) -> torch.Tensor:
        """Number of rows with loss of each sample (batch,); all of its rows without labels."""
        if self._tokens is None:
            self.bring(entries.on_host(self.unread()))
        assert self._tokens is not None
        return self._tokens

    def unread(self) -> dict[str, torch.Tensor]:
        """Return the number of rows with loss, and what the sequences have unread, on the batch's device."""
        labels = self.labels
        own = (self.mask if labels is None else labels != IGNORE).sum(1)
        return {"tokens of samples": own, **self._sequences.unread()}

    def bring(self, values: Mapping[str, torch.Tensor], /) -> None:
        """Take what `unread` named, on the host."""
        self._tokens = values["tokens of samples"]
        self._sequences.bring(values)

    def arrange(self, x: torch.Tensor, /) -> torch.Tensor:
        """Return the model's output (sequences * samples, time, width) as (batch, time, width), zeros after the end."""
        return self._in_rows(self._sequences.arrange(x), 0)

    def spread(self, values: torch.Tensor, /) -> torch.Tensor:
        """Return each sample's value (batch,) at each position of its sequences."""
        return self._sequences.spread(values.repeat(self._layout.sequences))

    def take(self, indices: Any, /) -> Any:
        """Return a batch of the samples at `indices` (k,), in that order, with all of their sequences.

        Raises
        ------
        ValueError, IndexError
            When `indices` are not indices of samples.
        """
        indices = entries.chosen(indices, self._number)
        if self._indexer is not None:
            return self._indexer(self.batch, indices)
        places = torch.cat([indices + self._number * number for number in range(self._layout.sequences)])
        together = self._sequences.take(places)
        taken = {
            name: entries.picked(value, 0, indices) if name in self._apart else together[name]
            for name, value in self.batch.items()
        }
        return entries.same_kind(self.batch, taken)

    def split(self, size: int, /) -> list[PairView]:
        """Return views of at most `size` consecutive samples each."""
        options: Any = {"indexer": self._indexer, "layout": self._layout}
        parts = torch.arange(self._number).split(size)
        return [PairView(self.take(part), beside=entries.of(self.beside, part), **options) for part in parts]

    @classmethod
    def join(cls, views: Sequence[PairView], /) -> Any:
        """Return one batch of the samples of all views."""
        count = views[0]._layout.sequences
        joined = PaddedView.join([view._sequences for view in views])
        numbers = torch.cat([torch.arange(count).repeat_interleave(len(view)) for view in views])
        mixed = PaddedView(joined, layout=views[0]._layout._replace(sequences=1))
        together = mixed.take(numbers.argsort(stable=True))
        batch = {}
        for name in views[0].batch:
            if name in views[0]._apart:
                batch[name] = entries.joined(name, [view.batch[name] for view in views], 0)
            else:
                batch[name] = together[name]
        return entries.same_kind(views[0].batch, batch)

    @cached_property
    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The place of each row (batch, time) among all positions of a sample, and whether there is such a row."""
        mask = self._sequences.mask
        if mask is None:
            mask = torch.ones(self._sequences.spread(torch.zeros(self._number)).shape, dtype=torch.bool)
            mask = mask.to(entries.tokens(self.batch).device)
        mask = self._side_by_side(mask[..., None])[..., 0]
        lengths = mask.sum(1)
        order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : max(int(lengths.max()), 1)]
        return order, torch.arange(order.shape[1], device=mask.device) < lengths[:, None]

    def _in_rows(self, x: torch.Tensor, filler: int) -> torch.Tensor:
        """Return values (sequences * samples, time, width) at the rows (batch, time, width) of the samples."""
        order, there = (part.to(x.device)[..., None] for part in self._places)
        rows = self._side_by_side(x).gather(1, order.expand(-1, -1, x.shape[2]))
        return rows.masked_fill(~there, filler)

    def _side_by_side(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.unflatten(0, (self._layout.sequences, self._number))
        return parts.transpose(0, 1).flatten(1, 2)

    def _is_apart(self, name: str, value: Any) -> bool:
        """Return whether an entry has one value for each sample, not one for each of its sequences."""
        return (
            name != "position_ids" and not entries.is_shared(value) and entries.is_one_each(name, value, self._number)
        )
