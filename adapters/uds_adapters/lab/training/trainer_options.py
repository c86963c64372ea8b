"""Options of `uds train` beyond the settings that all commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ...schedule import Schedule
from ..errors import LabError
from .settings import check_positive

__all__ = ["TrainerOptions"]

_CHECKPOINTS = 4  # checkpoints in a run, by default
_NAMES = {  # messages of `Schedule`, in the words of the command
    "`curve`": "`keep_schedule`",
    "`initial`": "`keep_initial`",
    "`steps`": "`keep_steps`",
    "curve='": "keep_schedule='",
}


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """When a run selects, what it writes, and how it uses memory.

    Parameters
    ----------
    scope
        ``"micro"``: selection within each batch; ``"step"``: all batches of an optimizer step are one pool.
    start_step, every
        The first step that selects, and the steps from one that selects to the next.
    keep_schedule, keep_initial, keep_steps
        How the kept fraction goes from `keep_initial` to `keep`, and in how many selecting steps; None: half of them.
    accumulate
        Batches in a step.
    gradient_checkpointing
        Recompute activations, which saves memory.
    save_every
        Steps between checkpoints; None: about four a run.
    checkpoints
        Number of checkpoints that stay, the latest.
    report_to
        Trackers that transformers supports, such as tensorboard or wandb.
    trl
        Further arguments of `trl.SFTConfig`; with any, TRL's trainer is used.
    """

    scope: Literal["micro", "step"] = "micro"
    start_step: int = 0
    every: int = 1
    keep_schedule: str = "constant"
    keep_initial: float = 1.0
    keep_steps: int | None = None
    accumulate: int = 1
    gradient_checkpointing: bool = False
    save_every: int | None = None
    checkpoints: int = 1
    report_to: Sequence[str] = ()
    trl: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_positive(self, "every", "keep_steps", "accumulate", "save_every", "checkpoints")
        if self.scope not in ("micro", "step"):
            msg = f"`scope` must be micro or step, got {self.scope!r}"
            raise LabError(msg)
        self.schedule(1)

    @property
    def plain(self) -> bool:
        """Whether a row of a batch is one sample."""
        return not (self.trl.get("packing") or self.trl.get("padding_free"))

    def schedule(self, steps: int, /) -> Schedule:
        """Return when a run of `steps` selects, and the fraction that it keeps at each step."""
        constant = self.keep_schedule == "constant"  # `Schedule` refuses what does not go with it
        selecting = max(1, (steps - self.start_step) // self.every)
        try:
            return Schedule(
                start_step=self.start_step,
                every=self.every,
                curve=cast("Literal['constant', 'linear', 'cosine']", self.keep_schedule),
                initial=self.keep_initial,
                steps=self.keep_steps if constant else self.keep_steps or max(1, selecting // 2),
            )
        except ValueError as error:
            message = str(error)
            for theirs, ours in _NAMES.items():
                message = message.replace(theirs, ours)
            raise LabError(message) from None

    def checkpoint_steps(self, steps: int, /) -> int:
        """Return the steps between checkpoints in a run of `steps`."""
        return self.save_every or max(1, round(steps / _CHECKPOINTS))
