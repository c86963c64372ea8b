"""Entries of a batch: sample and time axes, selection and validation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch

import uds_core as uds

__all__ = [
    "IGNORE",
    "LOSS_WEIGHTS",
    "Axes",
    "Indexer",
    "check_one_each",
    "check_shape",
    "chosen",
    "indexed",
    "inputs",
    "is_media",
    "is_one_each",
    "is_shared",
    "joined",
    "of",
    "on_host",
    "picked",
    "refuse",
    "same_kind",
    "targets",
    "tokens",
]

IGNORE = -100
LOSS_WEIGHTS = "loss_weights"
"""Entry with the weight of each token's loss, in the shape of the labels."""

Indexer = Callable[[Any, torch.Tensor], Any]
"""User-defined function from a batch and indices (k,) to the batch of these samples."""

_FOR_THE_LOSS = ("labels", "shift_labels", "num_items_in_batch", LOSS_WEIGHTS)
# one entry an image, a patch or a clip, never one a sample, though the numbers may agree
_MEDIA = re.compile(
    "(^|_)(aspect|audios?|frames|grid|images?|mel|patch(es)?|pixels?|speech|videos?|vision|visual|waveform)(_|$)"
    "|^(cross_attention_mask|feature_attention_mask|input_features|input_values|spatial_shapes)$"
)


class Axes(NamedTuple):
    """Sample axis and time axis of an entry; None without one."""

    samples: int | None = None
    time: int | None = None


def tokens(batch: Any, /) -> torch.Tensor:
    """Return the entry that defines the shape (batch, time, ...): `input_ids`, `inputs_embeds` or `labels`.

    Raises
    ------
    TypeError
        When the batch is not a mapping, or its entries are not tensors.
    ValueError
        When it has none of the three, or no samples.
    """
    if not isinstance(batch, Mapping):
        msg = (
            f"`batch` must be a mapping of tensors, as transformers' collators make it, got {type(batch).__name__}: "
            'name its parts first, as in select({"input_ids": batch[0], "labels": batch[1]}); parts without one row '
            "for each sample need an `indexer`"
        )
        raise TypeError(msg)
    first = next((batch[name] for name in ("input_ids", "inputs_embeds", "labels") if name in batch), None)
    apart = [name for name in batch if re.match("(prompt|chosen|rejected)_", name)]
    if first is None and apart:
        msg = (
            f"`batch` has {', '.join(apart)} in place of `input_ids`: the sequences of its examples are in entries of "
            "their own, as those of TRL's CPO and ORPO are. Which of them a sample has is not known here: use a "
            "trainer that joins them in its collator (DPO), or a policy for another trainer"
        )
        raise ValueError(msg)
    if first is None:
        msg = f"`batch` needs `input_ids`, `inputs_embeds` or `labels` to count its samples; it has {sorted(batch)}"
        raise ValueError(msg)
    if not isinstance(first, torch.Tensor):
        msg = f"`batch` must hold torch tensors, got {type(first).__name__}: let the collator return tensors"
        raise TypeError(msg)
    if first.ndim < 2 or 0 in first.shape:
        msg = f"`batch` must hold (batch, time) tensors with at least one sample, got shape {tuple(first.shape)}"
        raise ValueError(msg)
    return first


def inputs(batch: Mapping[str, Any], /) -> dict[str, Any]:
    """Return the inputs of the model's forward: all entries except those of the loss."""
    return {name: value for name, value in batch.items() if name not in _FOR_THE_LOSS}


def apart(
    batch: Mapping[str, Any], /, *, id_field: str | None, fields: Sequence[str]
) -> tuple[Any, list[Any], dict[str, torch.Tensor]]:
    """Return the batch with the model's entries only, the sample ids, and the policy's numbers including `id`.

    Raises
    ------
    ValueError
        When the batch lacks one of the entries.
    """
    wanted = {"id_field": id_field} if id_field else {}
    for name in (*wanted.values(), *fields):
        if name not in batch:
            why = "`id_field`" if name == id_field else "the policy asks for it"
            msg = (
                f"`batch` has no {name!r} ({why}); it has {sorted(batch)}: let data set and collator keep it "
                "(`uds_adapters.kept_columns`; where TRL packs, it drops all columns but the tokens)"
            )
            raise ValueError(msg)
    beside = {name: torch.atleast_1d(torch.as_tensor(batch[name])) for name in fields}
    ids: Any = batch[id_field] if id_field else []
    if not isinstance(ids, (torch.Tensor, Sequence)):
        ids = torch.as_tensor(ids)
    ids = torch.atleast_1d(ids) if isinstance(ids, torch.Tensor) else ids
    if isinstance(ids, torch.Tensor) or (len(ids) and all(isinstance(one, Integral) for one in ids)):
        beside["id"] = torch.as_tensor(ids)
    taken_out = {*fields, *wanted.values()}
    left = {name: value for name, value in batch.items() if name not in taken_out}
    return same_kind(batch, left), ids.tolist() if isinstance(ids, torch.Tensor) else list(ids), beside


def check_one_each(samples: int, ids: Sequence[Any], beside: Mapping[str, torch.Tensor], /, *, id_field: Any) -> None:
    """Raise unless there is one id, and one number of each column of the policy, for each sample.

    Raises
    ------
    ValueError
        When their number differs from that of the samples.
    """
    numbers = {name: len(column) if column.ndim else 1 for name, column in beside.items() if name != "id"}
    if id_field:
        numbers[id_field] = len(ids)
    for name, number in numbers.items():
        if number != samples:
            msg = f"`batch[{name!r}]` has {number} entries, and the batch has {samples} samples: it needs one for each"
            raise ValueError(msg)


def of(beside: Mapping[str, torch.Tensor], indices: torch.Tensor, /) -> dict[str, torch.Tensor]:
    """Return the numbers (k, ...) of the samples at `indices` (k,)."""
    return {name: numbers[indices.to(numbers.device)] for name, numbers in beside.items()}


def on_host(tensors: Mapping[str, torch.Tensor], /) -> dict[str, torch.Tensor]:
    """Return tensors on the CPU, those of one device in one transfer."""
    away = {name: x for name, x in tensors.items() if x.device.type != "cpu"}
    return {**tensors, **{name: torch.from_numpy(values) for name, values in uds.to_host(away).items()}}


def targets(batch: Mapping[str, Any], /, *, shift: bool = True) -> torch.Tensor | None:
    """Return the target of each row (batch, time): the next label, -100 at the last; the labels without `shift`."""
    if batch.get("shift_labels") is not None:
        return batch["shift_labels"]
    labels = batch.get("labels")
    if labels is None or not shift:
        return labels
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)


def is_shared(value: Any, /) -> bool:
    """Return whether a value belongs to the whole batch: a number, a string or None."""
    if isinstance(value, torch.Tensor):
        return value.ndim == 0
    return value is None or isinstance(value, (str, bytes, int, float, complex))


def is_media(name: str) -> bool:
    """Return whether the name is that of images, audio or video, which need not have one entry for each sample."""
    return _MEDIA.search(name.lower()) is not None


def is_one_each(name: str, value: Any, number: int, /) -> bool:
    """Return whether a sequence or a tensor has one entry for each of `number` samples."""
    if isinstance(value, torch.Tensor):
        return not is_media(name) and value.ndim > 0 and value.shape[0] == number
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)) or len(value) != number:
        return False
    return all(is_shared(entry) for entry in value)


def refuse(name: str, value: Any, number: int, /, *, what: str = "samples") -> ValueError:
    """Return the error for an entry that cannot be split into samples."""
    if isinstance(value, torch.Tensor):
        kind = f"has shape {tuple(value.shape)}"
    elif isinstance(value, Sequence):
        nested = sorted({type(entry).__name__ for entry in value if not is_shared(entry)})
        kind = f"is a {type(value).__name__} of {len(value)}" + (f" that holds {' and '.join(nested)}" * bool(nested))
    else:
        kind = f"is a {type(value).__name__}"
    return ValueError(
        f"`batch[{name!r}]` {kind}, and the batch has {number} {what}: it is not known which of its parts belong to "
        "which sample. Remove it from the batch, or hand over `indexer`, a function "
        "`indexer(batch, indices) -> batch` that takes the samples at `indices` (k,)"
    )


def check_shape(name: str, value: Any, expected: tuple[int, int], /) -> None:
    """Raise unless an entry has a column for each position; masks and labels must have two axes.

    Raises
    ------
    ValueError
        When the shape differs.
    """
    shape = tuple(getattr(value, "shape", ()))
    if value is None or (shape[:2] == expected and (len(shape) == 2 or not name.endswith(("mask", "labels")))):
        return
    msg = f"`batch[{name!r}]` must have shape (batch, time) = {expected}, got {shape}"
    if name == "labels" and len(shape) == 1:
        msg += (
            ": one label for each sample, as of classification and multiple choice. Selection is for the losses of "
            "tokens, and for pairs: leave the labels out of what is selected from, or use another trainer"
        )
    if len(shape) > 2:
        msg += ": expanded attention masks do not show the padding, let the collator return the 2-d mask"
    raise ValueError(msg)


def chosen(indices: Any, number: int, /) -> torch.Tensor:
    """Return `indices` (k,) as int64 on the CPU; raise unless they are indices of samples."""
    given = torch.as_tensor(indices)
    if given.ndim != 1 or not len(given) or given.is_floating_point() or given.dtype == torch.bool:
        msg = (
            "`indices` must be whole numbers (k,), at least one, "
            f"got shape {tuple(given.shape)} of {str(given.dtype).removeprefix('torch.')}"
        )
        raise ValueError(msg)
    given = given.to("cpu", torch.int64)
    if int(given.min()) < 0 or int(given.max()) >= number:
        msg = f"`indices` must lie between 0 and {number - 1}, the batch's samples, got {given.tolist()}"
        raise IndexError(msg)
    return given


def indexed(batch: Any, indices: torch.Tensor, indexer: Indexer, /) -> Any:
    """Return the result of the user's `indexer`; raise when its number of samples is wrong."""
    taken = indexer(batch, indices)
    first, whole = tokens(taken), tokens(batch)
    if whole.shape[0] > 1 and first.shape[0] != len(indices):
        msg = f"`indexer` was asked for {len(indices)} samples and returned a batch of {first.shape[0]}"
        raise ValueError(msg)
    return taken


def picked(value: Any, axis: int | None, indices: torch.Tensor, /) -> Any:
    """Return the parts of an entry at `indices` along an axis; the whole entry without an axis."""
    if axis is None:
        return value
    if isinstance(value, torch.Tensor):
        return value.index_select(axis, indices.to(value.device, non_blocking=True))
    return _listed(value, [value[i] for i in indices.tolist()])


def joined(name: str, values: Sequence[Any], axis: int | None, /) -> Any:
    """Return an entry of several batches as one, concatenated along an axis; without an axis they must be equal.

    Raises
    ------
    ValueError
        When the batches do not agree.
    """
    first, shapes = values[0], [tuple(v.shape) for v in values if isinstance(v, torch.Tensor)]
    if axis is None:
        if all(type(v) is type(first) and bool(v == first) for v in values):
            return first
        msg = f"`batch[{name!r}]` belongs to whole batches and differs between those to join, got {list(values)}"
        raise ValueError(msg)
    if not shapes:
        return _listed(first, [entry for value in values for entry in value])
    rests = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(shapes) != len(values) or len(rests) != 1:
        msg = f"`batch[{name!r}]` must agree in all axes but {axis} to be joined, got shapes {shapes}"
        raise ValueError(msg)
    return torch.cat(list(values), axis)


def same_kind(batch: Mapping[str, Any], entries: dict[str, Any], /) -> Any:
    """Return `entries` as a mapping of the type of `batch`."""
    return entries if type(batch) is dict else type(batch)(entries)  # type: ignore[call-arg]


def _listed(like: Any, parts: list[Any]) -> Any:
    return tuple(parts) if isinstance(like, tuple) else parts
