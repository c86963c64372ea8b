"""The protocol of policies: examine candidates one micro-batch at a time, then choose from the whole pool."""

from typing import Any, ClassVar, Protocol, runtime_checkable

from ._array import Array
from .candidates import Candidates, Features, Selection

__all__ = ["Policy"]


@runtime_checkable
class Policy(Protocol):
    """A rule for choosing samples: an immutable value of options. What changes is in the state that it is handed.

    It may also have an attribute `fields`, a tuple of names: entries of a batch, one number for each sample, that it
    wants handed over as `Candidates.extra`. And `scores_padding`, True where features depend on how far the whole
    batch is padded: then a batch is never scored in parts.
    """

    needs_logits: ClassVar[bool]
    """False where lengths are enough, so that no forward pass is needed."""

    def examine(self, candidates: Candidates, /) -> Features:
        """Features of each candidate, stateless, and of no influence on one another."""
        ...

    def init(self, features: Features, /) -> Any:
        """The state before the first choice; `features` tell library, device and sizes."""
        ...

    def choose(self, state: Any, features: Features, /, *, groups: Array | None = None) -> tuple[Selection, Any]:
        """The best of the pool, or of each of its groups, and the next state. `state` None means `init(features)`."""
        ...
