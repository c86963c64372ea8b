"""Selection history: policy state, number of selections and checksum."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import uds_core as uds

from .. import checkpoints

__all__ = ["History"]

_STATE, _CHOICES, _AUDITED = "state.", "choices", "audited"


class History:
    """State of the policy, and number and checksum of the selections so far.

    Attributes
    ----------
    state
        The policy's state; None before the first selection, and between loading and `restore`.
    choices
        Number of selections.
    checksum
        Equal when the same state was loaded, if any, and the same samples were chosen since.
    audited
        First and last selection that this process's audit has records of; None without any.
    """

    def __init__(self) -> None:
        self.state: Any = None
        self.choices = self.checksum = 0
        self.audited: tuple[int, int] | None = None
        self._loaded: dict[str, Any] | None = None
        self._about: Mapping[str, Any] | None = None

    @property
    def steps(self) -> int:
        """Number of the policy's own choices: the `step` of its state, where that counts them, else all selections."""
        if self._loaded is not None:
            return int(self._loaded.get("step", self.choices))
        return 0 if self.state is None else int(getattr(self.state, "step", self.choices))

    def pending(self, policy: Any, /) -> int:
        """Return the number of chosen samples whose exact scores the policy awaits."""
        return int(policy.pending(self.state))

    def add(self, chosen: torch.Tensor, /) -> None:
        """Add one selection, given the places (k,) of the chosen samples."""
        self.checksum = zlib.crc32(chosen.numpy().tobytes(), self.checksum)
        self.choices += 1

    def add_audited(self, *, every: int) -> None:
        """Count the coming selection as recorded by an audit that records selections that are multiples of `every`."""
        if self.choices % every == 0:
            self.audited = (self.choices if self.audited is None else self.audited[0], self.choices)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return a flat dict of tensors, for safetensors and `weights_only` loading."""
        arrays = uds.flatten(self.state) if self._loaded is None else self._loaded
        state = {_STATE + name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        audited = {} if self.audited is None else {_AUDITED: torch.tensor(self.audited)}
        return {_CHOICES: torch.tensor(self.choices), **audited, **state}

    def load_state_dict(self, state: Mapping[str, Any], /, *, about: Mapping[str, Any] | None = None) -> None:
        """Load the result of `state_dict`; `about`: the saved policy, as `checkpoints.describe` returns it.

        Raises
        ------
        ValueError
            When the names are not those of a selector's state.
        """
        unknown = [name for name in state if not name.startswith(_STATE) and name not in (_CHOICES, _AUDITED)]
        if unknown or _CHOICES not in state:
            msg = (
                f"not a selector's state: unknown entries {unknown[:5]}; expected {_CHOICES!r} and names beginning "
                f"with {_STATE!r}"
            )
            raise ValueError(msg)
        arrays = {name: torch.as_tensor(value).cpu().numpy() for name, value in state.items()}
        first, last = arrays.pop(_AUDITED, (-1, -1))  # not in the checksum: audits may differ between processes
        self.audited = None if first < 0 else (int(first), int(last))
        self.checksum = _checksum(arrays)
        self.choices = int(arrays.pop(_CHOICES))
        self.state, self._about = None, about
        self._loaded = {name.removeprefix(_STATE): array for name, array in arrays.items()} or None

    def restore(self, policy: uds.Policy, features: uds.Features, /) -> None:
        """Restore the loaded state; the policy's sizes are known only with its first features.

        Raises
        ------
        ValueError
            When it does not fit the policy; the message names the options that differ, if known.
        """
        if self._loaded is None:
            return
        try:
            self.state = uds.restore(policy.init(features), self._loaded)
        except ValueError as error:
            if self._about is None:
                raise
            different = "; ".join(checkpoints.differences(self._about, checkpoints.describe(policy)))
            msg = f"{error} ({different or 'the options are the same'})"
            raise ValueError(msg) from error
        self._loaded = self._about = None

    def restored(self, policy: uds.Policy, features: uds.Features, /) -> Any:
        """Return the state, after `restore`."""
        self.restore(policy, features)
        return self.state


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    # one sum for each array: joining the bytes would copy a large state
    sums = [zlib.crc32(np.ascontiguousarray(arrays[name]).tobytes()) for name in sorted(arrays)]
    return zlib.crc32(repr(sums).encode())
