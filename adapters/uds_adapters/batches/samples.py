"""Views of the samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from .documents import DocumentView, has_borders, is_line
from .entries import IGNORE, Indexer, is_shared, same_kind
from .layout import CAUSAL, Layout
from .packed import begins_anew, in_one_row, one_row_each
from .padded import PaddedView
from .pairs import PairView

__all__ = ["IGNORE", "Indexer", "SampleView", "blank", "empty", "join", "trained_tokens", "view"]


class SampleView(Protocol):
    """Samples of a padded or packed batch."""

    batch: Mapping[str, Any]
    """The batch of the samples, in the form in which they are scored and trained."""
    given: Mapping[str, Any]
    """The batch as it came: the same, except where its rows held several documents each."""
    beside: Mapping[str, torch.Tensor]
    """Name -> numbers (batch, ...) of the samples that are the policy's, not the model's; `id` is their identity."""

    def __len__(self) -> int: ...

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs of the model's forward: all entries except `labels`, `shift_labels` and `num_items_in_batch`."""
        ...

    @property
    def labels(self) -> torch.Tensor | None:
        """Target of each row (batch, time), already shifted, -100 for none; None where the batch has no labels."""
        ...

    @property
    def mask(self) -> torch.Tensor | None:
        """True at rows (batch, time) of a sample, False at padding; None without padding information."""
        ...

    @property
    def tokens(self) -> torch.Tensor:
        """Number of rows with loss of each sample (batch,), int64 on the CPU; all of its rows without labels."""
        ...

    def unread(self) -> dict[str, torch.Tensor]:
        """Return what the host will read of the batch, where it is: name -> tensor."""
        ...

    def bring(self, values: Mapping[str, torch.Tensor], /) -> None:
        """Take what `unread` named, on the host: nothing waits for the device again."""
        ...

    def arrange(self, x: torch.Tensor, /) -> torch.Tensor:
        """Return the model's output for each position of this batch, as (batch, time, width)."""
        ...

    def spread(self, values: torch.Tensor, /) -> torch.Tensor:
        """Return each sample's value (batch,) at each of its label's positions, in the labels' shape."""
        ...

    def take(self, indices: Any, /) -> Any:
        """Return the samples at `indices` (k,) as a batch of the same form and type, in that order, trimmed."""
        ...

    def split(self, size: int, /) -> Sequence[SampleView]:
        """Return views of at most `size` consecutive samples each, every one with a batch for the model."""
        ...


def view(
    batch: Mapping[str, Any],
    /,
    *,
    indexer: Indexer | None = None,
    layout: Layout = CAUSAL,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> SampleView:
    """Return a view of the samples of a batch.

    Parameters
    ----------
    batch
        What a collator makes: padded rows on either side, or packed and padding-free documents (TRL's, and
        `DataCollatorWithFlattening`'s). A row is one sample, unless its positions begin anew, its `seq_idx` changes, or
        the batch has the borders of documents: then each document is one, whatever the number of rows. Documents
        with a mask are scored and trained as padded rows, because a mask does not separate them; without one, in one
        row. Rows that an `indexer` takes are samples.
    indexer
        ``indexer(batch, indices) -> batch``: a function that takes the samples at `indices` (k,), for batches with
        entries that do not have one entry for each sample, such as images.
    layout
        Where samples and their targets are, as `Scorer.layouts` finds it for a model.
    beside
        Name -> numbers (batch, ...) of the samples, which go to the policy alone.

    Raises
    ------
    TypeError, ValueError
        When it is not known which parts of the batch belong to which sample.
    """
    if layout.sequences > 1:
        return PairView(batch, indexer=indexer, layout=layout, beside=beside)
    if not layout.decoder and is_line(batch):
        return DocumentView(batch, indexer=indexer, shift=layout.shift, beside=beside)
    samples = PaddedView(batch, indexer=indexer, layout=layout, beside=beside)
    if layout.decoder or indexer is not None or not begins_anew(batch):
        return samples
    if batch.get("attention_mask") is None:
        separate: Any = DocumentView(in_one_row(batch, shift=layout.shift), shift=layout.shift, beside=beside)
    else:
        separate = PaddedView(one_row_each(batch), layout=layout, beside=beside)
    separate.given = batch
    return separate


def join(batches: Sequence[Mapping[str, Any]], /, *, layout: Layout = CAUSAL) -> Any:
    """Return one batch of the samples of several: padded rows, or documents in one row.

    Raises
    ------
    ValueError
        When the batches are not of one form, or have different entries.
    """
    if not batches:
        msg = "`batches` must hold at least one batch to join, got none"
        raise ValueError(msg)
    names = [sorted(batch) for batch in batches]
    if any(other != names[0] for other in names):
        msg = f"`batches` must have the same entries to be joined, got {names}"
        raise ValueError(msg)
    if layout.sequences > 1:
        return PairView.join([PairView(batch, layout=layout) for batch in batches])
    views: list[Any] = [view(batch, layout=layout) for batch in batches]
    rows = [samples for samples in views if isinstance(samples, PaddedView)]
    if len(rows) == len(views):
        return PaddedView.join(rows)
    if rows and not any(has_borders(samples.batch) or begins_anew(samples.batch) for samples in views):
        return PaddedView.join([PaddedView(samples.batch, layout=layout) for samples in views])  # one sample a row
    if any("attention_mask" in samples.batch or has_borders(samples.batch) for samples in rows):
        msg = "`batches` must be all padded rows, or all one row of documents, to be joined; got some of either form"
        raise ValueError(msg)
    flat = [in_one_row(samples.batch, shift=layout.shift) if samples in rows else samples.batch for samples in views]
    return DocumentView.join([DocumentView(batch, shift=layout.shift) for batch in flat])


def blank(batch: Mapping[str, Any], /, *, indexer: Indexer | None = None, layout: Layout = CAUSAL) -> Any:
    """Return a batch of one sample without any target, which adds nothing to a summed loss.

    Raises
    ------
    ValueError
        When the batch has no labels to remove.
    """
    taken = view(batch, indexer=indexer, layout=layout).take([0])
    targets = [name for name in ("labels", "shift_labels") if taken.get(name) is not None]
    if not targets:
        msg = (
            "a batch without `labels` cannot be made blank, which is needed where there are too few samples: keep more"
        )
        raise ValueError(msg)
    return same_kind(taken, {**taken, **{name: torch.full_like(taken[name], IGNORE) for name in targets}})


def empty(batch: Mapping[str, Any], /) -> Any:
    """Return a batch with the same entries and no sample: it counts for nothing, and is not for the model."""
    cut = {
        name: value[:0] if isinstance(value, (torch.Tensor, list, tuple)) and not is_shared(value) else value
        for name, value in batch.items()
    }
    return same_kind(batch, cut)


def trained_tokens(batch: Mapping[str, Any], /, *, layout: Layout = CAUSAL) -> int:
    """Return the number of rows with loss of the batch; without labels, of all that are not padding."""
    if not len(next((batch[name] for name in ("input_ids", "inputs_embeds", "labels") if name in batch), "-")):
        return 0  # see `empty`
    return int(view(batch, indexer=_never, layout=layout).tokens.sum())


def _never(_batch: Any, _indices: torch.Tensor) -> Any:
    # counting does not split entries, so none needs to be refused
    raise NotImplementedError
