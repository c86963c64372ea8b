"""How a model is fine-tuned through TRL, as the user said it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import uds_core as uds

from ...schedule import Schedule
from ..errors import LabError
from ..policy_spec import make_policy
from ..training.settings import check_numbers

__all__ = ["Training"]

_EVALUATIONS, _CHECKPOINTS = 8, 4  # a run, where nothing else is asked for
_NAMES = {  # what `Schedule` says, in the words of the command
    "`keep`": "`keep_schedule`",
    "`initial`": "`keep_initial`",
    "`steps`": "`keep_steps`",
    "keep='": "keep_schedule='",
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """A policy, when it selects, and how the model is trained on what it chose.

    Parameters
    ----------
    policy, keep
        In words, and the share of the candidates that it keeps.
    scope
        ``"micro"``: each batch is chosen from; ``"step"``: all batches of an optimizer step are one pool.
    start_step, every
        The first step that selects, and the steps from one that does to the next.
    keep_schedule, keep_initial, keep_steps
        How the share goes from `keep_initial` to `keep`, and in how many selecting steps; None: half of them.
    steps, epochs
        Optimizer steps; or None, and passes over the training data.
    batch_size, accumulate
        Candidates a batch, and batches a step.
    learning_rate
        Its peak: it rises over the first twentieth of the steps and falls linearly to 0.
    lora_rank
        Rank of the LoRA adapters, or None for full fine-tuning.
    bf16, gradient_checkpointing
        Compute in bfloat16, the weights stay in float32; recompute activations, which saves memory.
    eval_every, save_every
        Steps between evaluations, and between checkpoints; None: about eight and four a run.
    checkpoints
        How many are kept, the latest.
    report_to
        Trackers that transformers knows, such as tensorboard or wandb.
    trl
        Further arguments of `trl.SFTConfig`.
    seed
        Of order, adapters, dropout and policy.
    """

    policy: str = "uds"
    keep: float = 0.25
    scope: str = "micro"
    start_step: int = 0
    every: int = 1
    keep_schedule: str = "constant"
    keep_initial: float = 1.0
    keep_steps: int | None = None
    steps: int | None = None
    epochs: float = 1.0
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 5e-5
    lora_rank: int | None = None
    bf16: bool = False
    gradient_checkpointing: bool = False
    eval_every: int | None = None
    save_every: int | None = None
    checkpoints: int = 1
    report_to: Sequence[str] = ()
    trl: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        whole = ("every", "steps", "batch_size", "accumulate", "lora_rank", "eval_every", "save_every", "checkpoints")
        check_numbers(self, whole=(*whole, "keep_steps"))
        if self.scope not in ("micro", "step"):
            msg = f"`scope` must be micro or step, got {self.scope!r}"
            raise LabError(msg)
        self.schedule(1)

    def make_policy(self) -> uds.Policy:
        """The policy, with `keep` and `seed` where it takes them."""
        return make_policy(self.policy, keep=self.keep, seed=self.seed)

    def schedule(self, steps: int, /) -> Schedule:
        """When a run of so many steps selects, and how much it keeps by then."""
        constant = self.keep_schedule == "constant"  # and whatever does not go with it is told of by `Schedule`
        selecting = max(1, (steps - self.start_step) // self.every)
        try:
            return Schedule(
                start_step=self.start_step,
                every=self.every,
                keep=cast("Literal['constant', 'linear', 'cosine']", self.keep_schedule),
                initial=self.keep_initial,
                steps=self.keep_steps if constant else self.keep_steps or max(1, selecting // 2),
            )
        except ValueError as error:
            said = str(error)
            for theirs, ours in _NAMES.items():
                said = said.replace(theirs, ours)
            raise LabError(said) from None

    def total_steps(self, rows: int, /) -> int:
        """Optimizer steps of a run over so many rows: training examples, or what they are packed into."""
        if rows < self.batch_size:
            what = "rows that training examples are packed into" if self.trl.get("packing") else "training examples"
            msg = f"`batch_size` counts candidates and is {self.batch_size}, more than the {rows} {what}"
            raise LabError(msg)
        return self.steps or max(1, round(self.epochs * rows / (self.batch_size * self.accumulate)))

    def evaluation_steps(self, steps: int, /) -> int:
        """Steps between evaluations in a run of so many."""
        return self.eval_every or max(1, round(steps / _EVALUATIONS))

    def checkpoint_steps(self, steps: int, /) -> int:
        """Steps between checkpoints in a run of so many."""
        return self.save_every or max(1, round(steps / _CHECKPOINTS))
