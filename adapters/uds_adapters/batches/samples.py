"""What a batch is: a mapping of tensors that holds samples, as padded rows or as documents in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from .documents import DocumentView, holds_documents
from .entries import IGNORE, Indexer, same_kind, tokens
from .padded import PaddedView

__all__ = ["IGNORE", "Indexer", "SampleView", "blank", "join", "trained_tokens", "view"]


class SampleView(Protocol):
    """The samples of a batch, whatever its form."""

    batch: Mapping[str, Any]
    """Where they come from."""
    beside: Mapping[str, torch.Tensor]
    """Name -> numbers (batch, ...) of the samples that are the policy's, not the model's; `id` is their identity."""

    def __len__(self) -> int: ...

    @property
    def inputs(self) -> dict[str, Any]:
        """What the model's forward needs: all but `labels`, `shift_labels` and `num_items_in_batch`."""
        ...

    @property
    def labels(self) -> torch.Tensor | None:
        """Target of each row (batch, time), already shifted, -100 for none; None where the batch has no labels."""
        ...

    @property
    def mask(self) -> torch.Tensor | None:
        """Which rows are a sample's own (batch, time), boolean; None where all are."""
        ...

    @property
    def tokens(self) -> torch.Tensor:
        """Rows of each sample (batch,) that carry loss, int64 on the host; all of its own where there are no labels."""
        ...

    def arrange(self, x: torch.Tensor, /) -> torch.Tensor:
        """What the model puts out for each position of this batch, as (batch, time, width)."""
        ...

    def spread(self, values: torch.Tensor, /) -> torch.Tensor:
        """Return each sample's value (batch,) at each of its label's positions, in the labels' shape."""
        ...

    def take(self, indices: Any, /) -> Any:
        """The samples at `indices` (k,) as a batch of the same form and type, in that order, without idle padding."""
        ...

    def split(self, size: int, /) -> Sequence[SampleView]:
        """Views of at most `size` consecutive samples each, every one of a batch that the model takes."""
        ...


def view(
    batch: Mapping[str, Any],
    /,
    *,
    indexer: Indexer | None = None,
    shift: bool = True,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> SampleView:
    """The samples of a batch.

    Parameters
    ----------
    batch
        What a collator makes: padded rows on either side, or packed and padding-free documents (TRL's, and
        `DataCollatorWithFlattening`'s).
    indexer
        ``indexer(batch, indices) -> batch``: your own rule to take the samples at `indices` (k,), for batches with
        entries that have no entry a sample, such as images.
    shift
        Whether the target of row t is the label of t + 1, as in causal models; False for encoder-decoder models.
    beside
        Name -> numbers (batch, ...) of the samples, which go to the policy alone.

    Raises
    ------
    TypeError, ValueError
        Where it is not known which parts of the batch belong to which sample.
    """
    if shift and holds_documents(batch):
        return DocumentView(batch, indexer=indexer, beside=beside)
    return PaddedView(batch, indexer=indexer, shift=shift, beside=beside)


def join(batches: Sequence[Mapping[str, Any]], /, *, shift: bool = True) -> Any:
    """One batch of the samples of several: rows padded on the side that they are padded on, documents in one line.

    Raises
    ------
    ValueError
        Where the batches are not of one form, or have different entries.
    """
    if not batches:
        msg = "`batches` must hold at least one batch to join, got none"
        raise ValueError(msg)
    names = [sorted(batch) for batch in batches]
    if any(other != names[0] for other in names):
        msg = f"`batches` must have the same entries to be joined, got {names}"
        raise ValueError(msg)
    lines = [shift and holds_documents(batch) for batch in batches]
    if not any(lines):
        return PaddedView.join([PaddedView(batch, shift=shift) for batch in batches])
    if any(tokens(batch).shape[0] != 1 for batch in batches):
        msg = "`batches` must be all padded rows, or all one row of documents, to be joined; got some of either form"
        raise ValueError(msg)
    return DocumentView.join([DocumentView(batch) for batch in batches])


def blank(batch: Mapping[str, Any], /, *, indexer: Indexer | None = None, shift: bool = True) -> Any:
    """A batch of one sample without any target: training on it adds nothing to a loss that is a sum over tokens.

    Raises
    ------
    ValueError
        Where the batch has no labels that could be taken away.
    """
    taken = view(batch, indexer=indexer, shift=shift).take([0])
    targets = [name for name in ("labels", "shift_labels") if taken.get(name) is not None]
    if not targets:
        msg = (
            "a batch without `labels` cannot be made blank, which is needed where there are too few samples: keep more"
        )
        raise ValueError(msg)
    return same_kind(taken, {**taken, **{name: torch.full_like(taken[name], IGNORE) for name in targets}})


def trained_tokens(batch: Mapping[str, Any], /, *, shift: bool = True) -> int:
    """Rows of the batch that carry loss; all tokens that are no padding where there are no labels."""
    return int(view(batch, indexer=_never, shift=shift).tokens.sum())


def _never(_batch: Any, _indices: torch.Tensor) -> Any:
    # counting takes nothing apart, so that no entry need be refused
    raise NotImplementedError
