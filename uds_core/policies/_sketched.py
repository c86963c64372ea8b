"""Sketch options that policies share, and the check that saved sketches fit them."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from .. import _options
from .._array import Array, array_namespace, at_least_one, to_numpy, widen
from ..candidates import Candidates, Features
from ..logits import Logits
from ..memory import Distance, Memory, Reservoir, diversity
from ..sketch import FourierSketch, PairedSketch, ShiftedSketch, Sketch
from ..spectrum import NuclearMethod
from ._budgeted import Budgeted

Rows: TypeAlias = Literal["labels", "tokens"]
Length: TypeAlias = Literal["none", "sqrt", "mean"]
SketchKind: TypeAlias = Literal["paired", "shifted", "fourier"]

MEMORY_DISTANCE = "memory_distance"  # the feature that `prepare` adds

_FOURIER_TIME = 512  # the paper's length of the time side
_FOURIER_TIME_RANK = 8  # and the paper's rank of it
_WORDS = {
    "rows": get_args(Rows),
    "length": get_args(Length),
    "in_batch": ("none", "mean", "greedy"),
    "replace": ("fifo", "reservoir"),
    "distance": get_args(Distance),
    "sketch": get_args(SketchKind),
    "method": get_args(NuclearMethod),
}


class SketchState(NamedTuple):
    """State of a policy that remembers the sketches of chosen samples, and nothing else."""

    memory: Memory
    recipe: int  # fingerprint of the options that sketches depend on

    def check(self, template: "SketchState", /) -> None:
        """Raise where the restored sketches cannot be compared with new ones."""
        check_fingerprint(self.recipe, template.recipe)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketched(Budgeted):
    """Policy that compares sketches of its candidates with those of samples chosen before.

    Parameters
    ----------
    keep, count
        The budget; see `Budget`.
    rows, length, centre, memory, sketch, dim, seed
        As in `UDS`.
    """

    rows: Rows = "labels"
    length: Length = "sqrt"
    centre: Any = "none"
    memory: int = 1024
    sketch: SketchKind = "paired"
    dim: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_words(self)
        _options.whole("memory", self.memory)
        _options.whole("dim", self.dim)
        _options.seed(self.seed)

    def examine(self, candidates: Candidates, /) -> Features:
        """Return `sketch` (batch, dim) and `length` (batch,), the number of scored rows."""
        logits, length = candidates.logits.centred(self.centre), candidates.lengths(self.rows)
        return {"sketch": self.sketches(logits, candidates.scored(self.rows), length), "length": length}

    def sketches(self, logits: Logits, mask: Array, length: Array, /) -> Array:
        """Return the sketches (batch, dim) of centred logits, divided as the option `length` says."""
        sketch = make_sketch(self.sketch, dim=self.dim, seed=self.seed, vocab=logits.shape[2])
        return sketch(logits, mask=mask) / length_divisor(length, self.length, dtype=logits.dtype)[:, None]

    def fingerprint(self) -> int:
        """Return the fingerprint of the options that sketches depend on."""
        return fingerprint(self.sketch, self.dim, self.seed, self.rows, self.length, self.centre)


def memory_distance(
    features: Features, memory: Memory | Reservoir, distance: Distance, /, *, rows: slice | None = None
) -> Array:
    """Return the distance (batch,) of each sketch to the memory, as `diversity`; of some `rows`, or as prepared."""
    if rows is None and MEMORY_DISTANCE in features:
        return features[MEMORY_DISTANCE]
    sketch = features["sketch"]
    return diversity(sketch if rows is None else sketch[rows, ...], memory, distance=distance)


def make_sketch(kind: SketchKind, /, *, dim: int, seed: int, vocab: int) -> Sketch:
    """Return the sketch that the option `sketch` names."""
    if kind != "fourier":
        made = PairedSketch if kind == "paired" else ShiftedSketch
        return made(time=_FOURIER_TIME, vocab=vocab, dim=dim, seed=seed)
    rank = (min(_FOURIER_TIME_RANK, dim), max(1, dim // _FOURIER_TIME_RANK))
    return FourierSketch(time=_FOURIER_TIME, vocab=vocab, rank=rank, seed=seed)


def length_divisor(length: Array, option: Length, /, *, dtype: Any) -> Array:
    """Return the divisor (batch,) that the option `length` names; 1 for an empty sample."""
    xp = array_namespace(length)
    length = xp.astype(length, dtype, copy=False)
    return at_least_one(length) ** {"none": 0.0, "sqrt": 0.5, "mean": 1.0}[option]


def check_words(policy: Any, /) -> None:
    """Raise where `policy` has an option of `UDS` that is a word, with an unknown value."""
    for name, known in _WORDS.items():
        if hasattr(policy, name):
            _options.one_of(name, getattr(policy, name), known)
    if isinstance(policy.centre, str) or not hasattr(policy.centre, "shape"):
        _options.check(
            "centre", policy.centre, "'none', 'row' or an array", kind=str, fits=lambda given: given in ("none", "row")
        )


def fingerprint(*options: Any) -> int:
    """Return a 32-bit checksum of options: words, numbers, arrays, tuples of these or None."""
    return zlib.crc32(repr(tuple(map(_plain, options))).encode())


def check_fingerprint(saved: int, now: int) -> None:
    """Raise where two fingerprints differ."""
    if saved != now:
        msg = (
            "the saved sketches were made with other options: use the `sketch`, `dim`, `seed`, `rows`, `length` "
            "and `centre` of the policy that was saved (of Reference: `time`, `rank`, `seed`, `signs` and `indices`), "
            "or start without its state"
        )
        raise ValueError(msg)


def _plain(option: Any) -> Any:
    if option is None or isinstance(option, str):
        return option
    if isinstance(option, (tuple, list)):
        return tuple(_plain(item) for item in cast("Sequence[Any]", option))
    if getattr(option, "shape", ()):
        floating = array_namespace(option).isdtype(option.dtype, "real floating")
        return to_numpy(widen(option) if floating else option).tobytes()  # NumPy has no bfloat16
    return int(option)
