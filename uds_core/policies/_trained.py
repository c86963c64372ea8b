"""Scores of trained samples: their check, and losses that are remembered by the samples' ids."""

from typing import Any, Literal

import numpy as np

from .._array import Array, to_numpy
from ..candidates import Candidates, Selection
from ..policy import Needs
from ._losses import token_loss

Source = Literal["scored", "trained"]
"""Where losses come from: a forward pass over the candidates, or the training pass over the chosen."""
SOURCES = ("scored", "trained")

Ids = np.ndarray[Any, Any]
_PENDING = 65_536  # chosen samples whose losses are awaited, at most


def training_needs(**own: Any) -> Needs:
    """Return the needs of a policy that reads the losses of trained samples, and those of `own`."""
    return Needs(ids=True, scored_choices=0, training_pass=True, row_means=True, **own)


def nobody() -> Ids:
    """Return no ids."""
    return np.empty(0, np.int64)


def after_choice(awaited: Ids, ids: Ids, selection: Selection, /) -> Ids:
    """Return the ids whose losses are awaited after a choice among the samples `ids` (batch,); the latest 65,536."""
    return np.concatenate([awaited, ids[selection.on_host().indices].astype(np.int64)])[-_PENDING:]


def of_awaited(scores: Array, number: int, /) -> np.ndarray[Any, Any]:
    """Return the scores (number,) of the samples that await them, on the host; raise where there are more or fewer."""
    if tuple(scores.shape) != (number,):
        msg = f"`scores` must have one for each of {number} chosen samples, got {tuple(scores.shape)}"
        raise ValueError(msg)
    return to_numpy(scores)


class Trained:
    """Policy that learns the losses of trained samples: its state has `awaited`, and `enter_losses` takes them in."""

    def measure(self, candidates: Candidates, /) -> Array:
        """Return the losses (batch,) of trained samples."""
        return token_loss(candidates, self)

    def pending(self, state: Any, /) -> int:
        """Return the number of chosen samples whose losses are awaited."""
        return 0 if state is None else len(getattr(state, "awaited", ()))

    def learn(self, state: Any, scores: Array, /) -> Any:
        """Return the state after the losses (pending,) of the samples chosen since the last call, NaN for unknown ones.

        Raises
        ------
        ValueError
            Where there are more or fewer losses than samples that await them.
        """
        losses = of_awaited(scores, self.pending(state)).astype(np.float32)
        losses = np.where(np.isfinite(losses), losses, np.float32(np.nan))
        # of a sample that was trained twice, the last loss counts
        state = self.enter_losses(state, state.awaited[::-1], losses[::-1])
        return state._replace(awaited=nobody())

    def enter_losses(self, state: Any, ids: Ids, losses: Ids, /) -> Any:
        """Return the state with `losses` (n,) of the samples `ids` (n,)."""
        raise NotImplementedError
