"""What a batch is: a mapping of tensors that holds samples, as padded rows or as documents in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from .documents import Documents, holds_documents
from .entries import IGNORE, Indexer, same_kind, tokens
from .padded import Rows

__all__ = ["IGNORE", "Indexer", "Samples", "blank", "join", "shifted_labels", "size", "take", "trained_tokens", "view"]


class Samples(Protocol):
    """The samples of a batch, whatever its form."""

    batch: Mapping[str, Any]
    """Where they come from."""

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

    def take(self, indices: Any, /) -> Any:
        """The samples at `indices` (k,) as a batch of the same form and type, in that order, without idle padding."""
        ...

    def split(self, size: int, /) -> Sequence[Samples]:
        """Views of at most `size` consecutive samples each, every one of a batch that the model takes."""
        ...


def view(batch: Mapping[str, Any], /, *, indexer: Indexer | None = None, shift: bool = True) -> Samples:
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

    Raises
    ------
    TypeError, ValueError
        Where it is not known which parts of the batch belong to which sample.
    """
    if shift and holds_documents(batch):
        return Documents(batch, indexer=indexer)
    return Rows(batch, indexer=indexer, shift=shift)


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
        return Rows.join([Rows(batch, shift=shift) for batch in batches])
    if any(tokens(batch).shape[0] != 1 for batch in batches):
        msg = "`batches` must be all padded rows, or all one row of documents, to be joined; got some of either form"
        raise ValueError(msg)
    return Documents.join([Documents(batch) for batch in batches])


def blank(batch: Mapping[str, Any], /, *, shift: bool = True) -> Any:
    """A batch of one sample without any target: training on it adds nothing to a loss that is a sum over tokens."""
    taken = view(batch, shift=shift).take([0])
    without = {name: torch.full_like(taken[name], IGNORE) for name in ("labels", "shift_labels") if name in taken}
    return same_kind(taken, {**taken, **without})


def size(batch: Mapping[str, Any], /) -> int:
    """Number of samples, the leading axis of `input_ids` (or `inputs_embeds`, or `labels`).

    Raises
    ------
    TypeError
        Where the batch is not a mapping.
    ValueError
        Where its rows are not samples: packed or padding-free batches, of one row with several documents.
    """
    if not isinstance(batch, Mapping):
        msg = f"`batch` must be a mapping of tensors, as transformers' collators make it, got {type(batch).__name__}"
        raise TypeError(msg)
    first = next((batch[name] for name in ("input_ids", "inputs_embeds", "labels") if name in batch), None)
    if first is None:
        msg = f"`batch` needs `input_ids`, `inputs_embeds` or `labels` to tell its samples; it has {sorted(batch)}"
        raise ValueError(msg)
    _check_tensor(first)
    for name in ("attention_mask", "labels", "shift_labels"):
        other = batch.get(name)
        if other is not None and getattr(other, "ndim", 2) == 2 and tuple(other.shape) != tuple(first.shape[:2]):
            msg = (
                f"`batch[{name!r}]` must have shape (batch, time) = {tuple(first.shape[:2])}, got {tuple(other.shape)}"
            )
            raise ValueError(msg)
    if _is_packed(batch):
        msg = (
            "`batch` is packed or padding-free: its rows are not samples, so there is nothing to choose between. "
            "Use padded batches (TRL: packing=False, padding_free=False)"
        )
        raise ValueError(msg)
    return first.shape[0]


def take(batch: Mapping[str, Any], indices: torch.Tensor, /) -> Any:
    """The samples at `indices` (k,), as the same type of mapping, in that order.

    Tensors and sequences with one entry a sample are indexed; values without a sample axis (numbers, None, positions
    shared by all rows) pass through.

    Raises
    ------
    ValueError
        Where a tensor's leading axis is neither: which entries belong to which sample is not known.
    """
    number = size(batch)
    taken = {name: _take_value(name, value, indices, number) for name, value in batch.items()}
    return taken if type(batch) is dict else type(batch)(taken)  # type: ignore[call-arg]


def shifted_labels(batch: Mapping[str, Any], /) -> torch.Tensor | None:
    """Target of each row of a causal model, (batch, time): that of the next position; -100 at the last."""
    if batch.get("shift_labels") is not None:
        return batch["shift_labels"]
    labels = batch.get("labels")
    return None if labels is None else torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)


def trained_tokens(batch: Mapping[str, Any], /, *, shift: bool = True) -> int:
    """Rows of the batch that carry loss; all tokens that are no padding where there are no labels."""
    return int(view(batch, indexer=_never, shift=shift).tokens.sum())


def _never(_batch: Any, _indices: torch.Tensor) -> Any:
    # counting takes nothing apart, so that no entry need be refused
    raise NotImplementedError


def _check_tensor(first: Any) -> None:
    if not isinstance(first, torch.Tensor):
        msg = f"`batch` must hold torch tensors, got {type(first).__name__}: let the collator return tensors"
        raise TypeError(msg)
    if first.ndim < 2 or 0 in first.shape:
        msg = f"`batch` must hold (batch, time) tensors with at least one sample, got shape {tuple(first.shape)}"
        raise ValueError(msg)


def _take_value(name: str, value: Any, indices: torch.Tensor, number: int) -> Any:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or (name == "position_ids" and number > 1 and value.shape[0] == 1):
            return value
        if value.shape[0] == number:
            return value.index_select(0, indices.to(value.device))
        msg = (
            f"`batch[{name!r}]` has shape {tuple(value.shape)}, but the batch has {number} samples: it is not known "
            "which of its entries belong to which sample. Leave it out of the batch, or give it one entry a sample"
        )
        raise ValueError(msg)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == number:
        return type(value)(value[i] for i in indices.tolist())  # type: ignore[call-arg]
    return value


def _is_packed(batch: Mapping[str, Any]) -> bool:
    if any(name.startswith("cu_seq_lens") or name == "seq_idx" for name in batch):
        return True
    positions, ids = batch.get("position_ids"), batch.get("input_ids")
    if positions is None or ids is None or ids.shape[0] != 1 or positions.ndim != 2 or "attention_mask" in batch:
        return False
    return int((positions[0] == 0).sum()) > 1
