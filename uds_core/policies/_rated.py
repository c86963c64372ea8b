"""Rating and remembering, the two parts of a choice that a policy shares with one that predicts its scores."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .._array import Array
from ..candidates import Candidates, Features
from ..policy import Needs


class Rating(NamedTuple):
    """Scores of a pool."""

    scores: Array  # (batch,)
    parts: Mapping[str, Array]  # name -> (batch,)
    metrics: Mapping[str, Array]  # name -> ()
    state: Any  # after rating, before anything is remembered
    storable: Array | None = None  # (batch,) which samples may be remembered; None: nothing is


@runtime_checkable
class Rated(Protocol):
    """A policy whose choice is: rate the pool, keep the best, remember them; and whose scores can be predicted."""

    @property
    def needs(self) -> Needs:
        """Inputs of `examine`."""
        ...

    @property
    def reads_sizes(self) -> bool:
        """Whether the numbers of all tokens of samples are read: the feature `size`."""
        ...

    @property
    def predictable(self) -> bool:
        """Whether the score depends on a sample's own features and on the state alone."""
        ...

    def examine(self, candidates: Candidates, /) -> Features:
        """Return the features of each candidate."""
        ...

    def label(self, features: Features, /) -> Array:
        """Return the number (batch,) that is worth predicting: it depends on a sample's own features alone."""
        ...

    def from_label(self, label: Array, sketch: Array, length: Array, /) -> Features:
        """Return the features that `rate` reads, for samples with these labels; `sketch` tells how they differ."""
        ...

    def init(self, features: Features, /) -> Any:
        """Return the state before the first choice."""
        ...

    def rate(self, state: Any, features: Features, /) -> Rating:
        """Return the scores of a pool."""
        ...

    def remember(self, state: Any, features: Features, indices: Array, /) -> Any:
        """Return the state after the storable samples at `indices` (k,) were chosen."""
        ...
