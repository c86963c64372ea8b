"""Scores of a pool, also on the host: a choice is made there, after one transfer of all that it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._array import Array, constant
from .._host import Host, to_host
from ..candidates import Features, HostSelection, Selection
from ..choice import Budget, top_k
from ..memory import Memory, finite_points, pushed

_FOR_ANOTHER = "_"  # begins the names of features that a policy brings to the host for the policy around it


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Scores, parts and metrics of a pool on its device, and the same on the host."""

    scores: Array
    parts: Mapping[str, Array]
    metrics: Mapping[str, Array]
    host: Mapping[str, Host]

    @classmethod
    def of(
        cls,
        features: Features,
        scores: Array,
        /,
        *,
        parts: Mapping[str, Array] | None = None,
        metrics: Mapping[str, Array] | None = None,
        groups: Array | None = None,
        **beside: Array,
    ) -> "Scored":
        """Bring the scores of a pool to the host, with the lengths and what else is given."""
        parts, metrics = parts or {}, metrics or {}
        read = {"scores": scores, "length": features["length"], **beside}
        read |= {name: features[name] for name in ("size",) if name in features}
        read |= {} if groups is None else {"groups": groups}
        read |= {f"part {name}": part for name, part in parts.items()}
        read |= {f"metric {name}": number for name, number in metrics.items()}
        read |= {name: feature for name, feature in features.items() if name.startswith(_FOR_ANOTHER)}
        return cls(scores=scores, parts=parts, metrics=metrics, host=to_host(read))

    @property
    def numbers(self) -> Host:
        """The scores (batch,) on the host."""
        return self.host["scores"]

    @property
    def length(self) -> Host:
        """The scored rows (batch,) on the host."""
        return self.host["length"]

    @property
    def groups(self) -> Host | None:
        """The groups (batch,) on the host."""
        return self.host.get("groups")

    def best(self, budget: Budget, /) -> Host:
        """Return the indices (k,) of the highest scores."""
        return top_k(self.numbers, self.counted(budget), budget=budget, groups=self.groups)

    def counted(self, budget: Budget, /) -> Host:
        """Return the tokens (batch,) that a budget counts, 0 for empty samples."""
        return self.length if budget.processed is None else np.where(self.length > 0, self.host["size"], 0)

    def rescored(self, scores: Host, /, *, parts: Mapping[str, Host]) -> "Scored":
        """Return other scores (batch,), which were computed on the host, in place of these, and their parts."""
        scores = scores.astype(self.numbers.dtype, copy=False)
        like = self.scores
        bare = Scored(
            scores=constant(scores, like=like, dtype=like.dtype),
            parts={},
            metrics=self.metrics,
            host={**self.host, "scores": scores},
        )
        return bare.adding(parts=parts)

    def adding(
        self, *, parts: Mapping[str, Host] | None = None, metrics: Mapping[str, Host | float] | None = None
    ) -> "Scored":
        """Return the same with more parts (batch,) and metrics (), which were computed on the host."""
        like, dtype = self.scores, self.numbers.dtype
        more = {name: np.asarray(x).astype(dtype, copy=False) for name, x in (parts or {}).items()}
        also = {name: np.asarray(x).astype(dtype, copy=False) for name, x in (metrics or {}).items()}
        host = {**self.host, **{f"part {n}": x for n, x in more.items()}, **{f"metric {n}": x for n, x in also.items()}}
        moved = (
            {name: constant(x, like=like, dtype=like.dtype) for name, x in found.items()} for found in (more, also)
        )
        return Scored(
            scores=like, parts={**self.parts, **next(moved)}, metrics={**self.metrics, **next(moved)}, host=host
        )

    def selection(self, indices: Host, weights: Host | None = None, /) -> Selection:
        """Return the selection of `indices` (k,), on the device of the scores."""
        parts = {name: self.host[f"part {name}"] for name in self.parts}
        metrics = {name: self.host[f"metric {name}"] for name in self.metrics}
        beside = {name: values for name, values in self.host.items() if name.startswith(_FOR_ANOTHER)}
        known = HostSelection(indices, self.numbers, weights, parts, metrics, beside)
        like = self.scores
        return Selection(
            indices=constant(indices, like=like),
            scores=self.scores,
            weights=None if weights is None else constant(weights, like=like, dtype=like.dtype),
            parts=self.parts,
            metrics=self.metrics,
        ).with_host(known)


class Inside(NamedTuple):
    """A choice of the policy inside of another, on the host, and what came along for the outer policy."""

    selection: Selection
    state: Any
    scores: Host  # (batch,), those of samples set aside lowered
    beside: Mapping[str, Host]

    def selected(
        self,
        *,
        scores: Host,
        indices: Host,
        parts: Mapping[str, Array],
        metrics: Mapping[str, Array],
    ) -> Selection:
        """Return the selection with `scores` and `indices` in place of its own, and more parts and metrics."""
        known, like = self.selection.on_host(), self.selection.scores
        host_parts = {**known.parts, **{name: self.beside[name] for name in parts}}
        host_metrics = {**known.metrics, **{name: self.beside[name] for name in metrics}}
        return Selection(
            indices=constant(indices, like=like),
            scores=constant(scores, like=like, dtype=like.dtype),
            parts={**self.selection.parts, **parts},
            metrics={**self.selection.metrics, **metrics},
        ).with_host(HostSelection(indices, scores, None, host_parts, host_metrics, known.beside))


def chosen_inside(
    policy: Any, state: Any, features: Features, aside: Array, /, *, groups: Array | None, beside: Mapping[str, Array]
) -> Inside:
    """Let a policy choose from `features`, and bring `beside` to the host in the transfer that it makes.

    The scores of samples `aside` (batch,) are lowered.
    """
    flags = {"aside": aside, **beside}
    depth = 1 + max((len(name) - len(name.lstrip(_FOR_ANOTHER)) for name in features), default=0)
    names = {name: _FOR_ANOTHER * depth + name for name in flags}
    given = {**features, **{names[name]: array for name, array in flags.items()}}
    selection, state = policy.choose(state, given, groups=groups)
    known = selection.on_host()
    if all(name in known.beside for name in names.values()):
        host = {name: known.beside[given] for name, given in names.items()}
    else:
        host = to_host(flags)
    return Inside(selection, state, lowered(known.scores, host["aside"]), host)


def lowered(scores: Host, aside: Host, /) -> Host:
    """Return the scores (batch,), of samples `aside` less the range of the finite scores, at least 1."""
    finite = scores[np.isfinite(scores)]
    gap = max(float(finite.max()) - float(finite.min()), 1.0) if finite.size else 1.0
    return np.where(aside, scores - scores.dtype.type(gap), scores)


def with_chosen(memory: Memory, sketches: Array, indices: Host, able: Host, /) -> Memory:
    """Return `memory` with the `sketches` (batch, dim) at those of `indices` (k,) whose sample is `able` (batch,)."""
    return pushed(memory, sketches, constant(indices[able[indices]], like=sketches))


def is_storable(sketches: Array, known: Array, /) -> Array:
    """Return which samples (batch,) may be remembered: those `known` whose sketch is finite."""
    return known & finite_points(sketches)
