"""Candidates, their features, and the selection."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ._array import Array, array_namespace, check_device, constant, device, to_numpy
from ._host import to_host
from .logits import Logits, as_logits
from .rows import IGNORE, check_mask

Features: TypeAlias = Mapping[str, Array]
"""What a policy wrote down of each candidate: name -> array with leading axis batch. `length` is always there."""


class Candidates:
    """Samples that were forwarded.

    Parameters
    ----------
    logits
        (batch, time, vocab), or ``head(hidden)``; None for policies that look at none (`Needs.logits`).
    mask
        (batch, time), true for rows that may be scored. Default: all.
    labels
        (batch, time) integers: the target of each row, already shifted; -100 for none.
    hidden
        (batch, time, width): what went into the head, for gradients in its weight where `logits` is an array.
    layers
        Layer -> (batch, time, width): outputs of decoder layers, for policies that ask for them (`Needs.layers`).
    ids
        (batch,) whole numbers, the samples' identities in the data set, for policies that remember them. Of any array
        library, or a list.
    glance
        (batch, width): what `uds_core.glance` returns, for policies that ask for it (`Needs.glance`).
    ngrams
        (batch, dim): what `uds_core.ngram_sketch` returns, for policies that ask for it (`Needs.ngrams`).
    ngram_counts
        (batch, buckets): what `uds_core.ngram_counts` returns, for policies that ask for it (`Needs.ngram_counts`).
    **extra
        Further arrays with leading axis batch, by name, for policies that ask for them (`Needs.columns`).
    """

    def __init__(
        self,
        logits: Any,
        *,
        mask: Array | None = None,
        labels: Array | None = None,
        hidden: Array | None = None,
        layers: Mapping[int, Array] | None = None,
        ids: Array | None = None,
        glance: Array | None = None,
        ngrams: Array | None = None,
        ngram_counts: Array | None = None,
        **extra: Any,
    ) -> None:
        known = next((a for a in (labels, mask) if a is not None), None)
        if logits is None and known is None:
            msg = "candidates need `logits`, or at least a `mask` or `labels` that give their lengths"
            raise ValueError(msg)
        self._logits: Logits | None = None if logits is None else as_logits(logits)
        like: Array = known if self._logits is None else self._logits.like
        shape = tuple(like.shape) if self._logits is None else self._logits.shape[:2]
        if len(shape) != 2:
            msg = f"`labels` and `mask` must have shape (batch, time), got {shape}"
            raise ValueError(msg)
        self.like = like
        self.shape: tuple[int, int] = (shape[0], shape[1])
        self.mask = check_mask(mask, self.shape, like=like)
        if labels is not None:
            array_namespace(labels, like)
            check_device("labels", labels, like=like, like_name="logits")
            if tuple(labels.shape) != self.shape:
                msg = f"`labels` must have shape (batch, time) = {self.shape}, got {tuple(labels.shape)}"
                raise ValueError(msg)
        self.labels, self.ids, self.extra = labels, ids, extra
        self._tokens = {"glance": glance, "ngrams": ngrams, "ngram_counts": ngram_counts}
        self.hidden, self._layers = hidden, {} if layers is None else dict(layers)
        for layer, states in self._layers.items():
            check_device(f"layers[{layer}]", states, like=like, like_name="logits")
            if tuple(states.shape[:2]) != self.shape:
                shape = tuple(states.shape)
                msg = f"`layers[{layer}]` must be (batch, time, width) with (batch, time) = {self.shape}, got {shape}"
                raise ValueError(msg)

    @property
    def logits(self) -> Logits:
        """The logits; an error where there are none."""
        if self._logits is None:
            msg = "this policy scores `logits`, but the candidates came without them"
            raise ValueError(msg)
        return self._logits

    @property
    def has_logits(self) -> bool:
        """Whether the candidates were forwarded."""
        return self._logits is not None

    @property
    def glance(self) -> Array:
        """The glances (batch, width); an error where there are none."""
        return self._of_tokens("glance", "uds_core.glance(token_ids, labels, embeddings, mask=mask)")

    @property
    def ngrams(self) -> Array:
        """The sketches of token n-grams (batch, dim); an error where there are none."""
        return self._of_tokens("ngrams", "uds_core.ngram_sketch(token_ids, mask=mask)")

    @property
    def ngram_counts(self) -> Array:
        """The counts of hashed tokens and pairs of tokens (batch, buckets); an error where there are none."""
        return self._of_tokens("ngram_counts", "uds_core.ngram_counts(token_ids, mask=mask)")

    def _of_tokens(self, name: str, remedy: str) -> Array:
        values = self._tokens[name]
        if values is None:
            msg = f"this policy reads `{name}`, and the candidates came without: give `{name}`={remedy}"
            raise ValueError(msg)
        check_device(name, values, like=self.like, like_name="labels")
        if values.ndim != 2 or values.shape[0] != self.shape[0]:
            msg = f"`{name}` must have a row for each of {self.shape[0]} samples, got shape {tuple(values.shape)}"
            raise ValueError(msg)
        return values

    def with_extra(self, **extra: Any) -> "Candidates":
        """Return the same candidates with further arrays in `extra`."""
        further = copy.copy(self)
        further.extra = {**self.extra, **extra}
        return further

    def with_tokens(self, **read: Array) -> "Candidates":
        """Return the same candidates with what is known of their tokens: `glance`, `ngrams` or `ngram_counts`."""
        further = copy.copy(self)
        further._tokens = {**self._tokens, **read}
        return further

    def layer(self, number: int, /) -> Array:
        """Return the output of a decoder layer (batch, time, width); an error where the candidates came without it."""
        if number not in self._layers:
            msg = (
                f"this policy reads the output of layer {number}, but the candidates came with "
                f"{sorted(self._layers) or 'none'}: name it in the policy's `needs`, as in Needs(layers=({number},))"
            )
            raise ValueError(msg)
        return self._layers[number]

    def identity(self) -> Array:
        """Return `ids` (batch,), checked, on the device of the other arrays: the feature ``"id"``.

        Raises
        ------
        ValueError, TypeError
            Where there are none, or they are no whole numbers that fit here.
        """
        if self.ids is None:
            msg = (
                "this policy remembers samples by `ids`, and the candidates came without them: "
                "give the selector the name of their entry (`id_field`)"
            )
            raise ValueError(msg)
        ids = self._checked("ids", self.ids)
        if not self._is_here(ids):
            ids = to_numpy(ids)
            here = constant(ids, like=self.like) if ids.dtype.kind in "iu" else ids
            if here is not ids and not _holds(here, ids):
                msg = f"`ids` up to {ids.max()} do not fit into {here.dtype}: number the samples from 0"
                raise ValueError(msg)
            ids = here
        if not array_namespace(ids).isdtype(ids.dtype, "integral"):
            msg = f"`ids` must be whole numbers, got {ids.dtype}: number the samples of the data set"
            raise TypeError(msg)
        return ids

    def identity_on_host(self) -> np.ndarray[Any, Any]:
        """Return `ids` (batch,), checked, on the host: without a transfer where they are there."""
        if self.ids is not None:
            ids = self._checked("ids", self.ids)
            if not self._is_here(ids) and (known := to_numpy(ids)).dtype.kind in "iu":
                return known
        return to_numpy(self.identity())

    def column(self, name: str, /) -> Array:
        """Return the numbers (batch,) given as `name`, checked, on the device of the other arrays.

        Raises
        ------
        ValueError
            Where there are none, or not one for each sample.
        """
        if name not in self.extra:
            msg = f"this policy reads {name!r} of each sample, and the candidates came without it: have {[*self.extra]}"
            raise ValueError(msg)
        numbers, xp = self._checked(name, self.extra[name]), array_namespace(self.like)
        if self._is_here(numbers):
            return xp.astype(numbers, xp.float32, copy=False)
        return constant(to_numpy(numbers), like=self.like, dtype=xp.float32)

    def _checked(self, name: str, values: Any) -> Any:
        """Return `values` as an array (batch,) of its own library."""
        values = values if hasattr(values, "dtype") else np.asarray(values)
        if tuple(values.shape) != self.shape[:1]:
            msg = f"`{name}` must have shape (batch,) = {self.shape[:1]}, got {tuple(values.shape)}"
            raise ValueError(msg)
        return values

    def _is_here(self, x: Any) -> bool:
        """Return whether `x` has the library and device of the other arrays, so that no copy by the host is needed."""
        return array_namespace(x) is array_namespace(self.like) and device(x) == device(self.like)

    def scored(self, rows: str = "labels", /) -> Array:
        """Return a mask (batch, time), true for the rows that are scored.

        `rows`: ``"labels"``, those of the mask whose target carries loss (all of the mask where there are no labels);
        ``"tokens"``, those of the mask; ``"all"``, every row, padding too.
        """
        xp = array_namespace(self.like)
        if rows not in ("labels", "tokens", "all"):
            msg = f"`rows` must be 'labels', 'tokens' or 'all', got {rows!r}"
            raise ValueError(msg)
        mask = self.mask
        if mask is None or rows == "all":
            mask = xp.ones(self.shape, dtype=xp.bool, device=device(self.like))
        if rows == "labels" and self.labels is not None:
            mask = mask & (self.labels != IGNORE)
        return mask

    def lengths(self, rows: str = "labels", /) -> Array:
        """Return the number of scored rows (batch,), float32."""
        xp = array_namespace(self.like)
        return xp.sum(xp.astype(self.scored(rows), xp.float32), axis=1)


class HostSelection(NamedTuple):
    """A `Selection` on the host, half floats widened."""

    indices: np.ndarray[Any, Any]
    scores: np.ndarray[Any, Any]
    weights: np.ndarray[Any, Any] | None
    parts: Mapping[str, np.ndarray[Any, Any]]
    metrics: Mapping[str, np.ndarray[Any, Any]]
    beside: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({})  # what came along for a policy around


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Chosen samples, with the scores that led to the choice."""

    indices: Array
    """(k,) int32, best first."""
    scores: Array
    """(batch,)."""
    weights: Array | None = None
    """(k,) importance weights of the chosen, or None where all count the same."""
    parts: Mapping[str, Array] = field(default_factory=dict[str, Array])
    """Components of the scores: name -> (batch,)."""
    metrics: Mapping[str, Array] = field(default_factory=dict[str, Array])
    """Numbers about the whole pool: name -> (); the effective ``alpha``, for one."""
    _host: ClassVar[HostSelection | None] = None  # no field: `dataclasses.replace` must not hand it on

    def on_host(self) -> HostSelection:
        """Return the same on the host, in one transfer where the policy has not brought it there."""
        host = self._read() if self._host is None else self._host
        self.with_host(host)
        return host

    def with_host(self, host: HostSelection, /) -> "Selection":
        """Keep what is known of this selection on the host, for `on_host`; return the selection."""
        object.__setattr__(self, "_host", host)
        return self

    def table(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return each candidate's `score` and parts, name -> (batch,) on the host."""
        host = self.on_host()
        return {"score": host.scores, **host.parts}

    def unscored(self) -> np.ndarray[Any, Any]:
        """Return whether each candidate's score is NaN, (batch,) on the host."""
        return np.isnan(self.on_host().scores)

    def _read(self) -> HostSelection:
        given = {"indices": self.indices, "scores": self.scores}
        given |= {} if self.weights is None else {"weights": self.weights}
        given |= {f"part {name}": part for name, part in self.parts.items()}
        host = to_host(given | {f"metric {name}": number for name, number in self.metrics.items()})
        parts = {name: host[f"part {name}"] for name in self.parts}
        metrics = {name: host[f"metric {name}"] for name in self.metrics}
        return HostSelection(host["indices"], host["scores"], host.get("weights"), parts, metrics)


def pool(features: Sequence[Features], /) -> Features:
    """Concatenate the features of several micro-batches along the batch.

    Raises
    ------
    ValueError
        Where there are none, or they do not concatenate.
    """
    if not features:
        msg = "`features` is empty: nothing to pool"
        raise ValueError(msg)
    if len(features) == 1:
        return features[0]
    xp = array_namespace(*features[0].values())
    for name in features[0]:
        shapes = [tuple(part[name].shape) for part in features]
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            msg = (
                f"the features {name!r} of several micro-batches do not concatenate, they have shapes {shapes}: choose "
                "from each batch (scope='micro'), and score it in one piece (`score_batch_size`)"
            )
            raise ValueError(msg)
    return {name: xp.concat([part[name] for part in features], axis=0) for name in features[0]}


def _holds(here: Array, ids: np.ndarray[Any, Any]) -> bool:
    """Return whether the dtype of `here` holds all `ids`, which JAX cuts to 32 bits."""
    limits = array_namespace(here).iinfo(here.dtype)
    return not ids.size or bool(limits.min <= int(ids.min()) and int(ids.max()) <= limits.max)
