"""Selection in any subclass of the Hugging Face Trainer."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import uds_core as uds

from . import checkpoints
from .batches import LOSS_WEIGHTS
from .batches.loss import weighted_loss
from .ranks import Ranks
from .scoring.models import bare, is_encoder_decoder
from .selection.checks import check_policy, draws_weights
from .torch import BatchSelector

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the mixin alone imports no transformers

__all__ = ["UDSTrainerMixin"]

_FILE = "uds.safetensors"


class UDSTrainerMixin(Trainer):
    """Puts a policy into any subclass of `transformers.Trainer`: ``class Mine(UDSTrainerMixin, AnyTrainer)``.

    `per_device_train_batch_size` counts *candidates*: with ``keep=0.25`` and a batch size of 32, 8 samples are trained
    on in each micro-batch. They are chosen when the Trainer draws its batches, before it counts the tokens that the
    loss is divided by, so gradients are those of a Trainer that was fed the chosen samples.

    Parameters
    ----------
    policy
        Any `uds_core` policy, or its text, as in ``"uds:keep=0.25"``; required.
    scope
        ``"micro"``: each micro-batch is chosen from. ``"step"``: all micro-batches of an optimizer step are one pool,
        and the chosen are split evenly over as many batches.
    ranks
        With several processes: ``"rank"``, each keeps the best of its own candidates; ``"global"``, the best of all
        processes' candidates are kept, and trained in equal numbers. Or a `uds_adapters.ranks.Ranks`. So
        ``scope="step", ranks="global"`` makes one pool of all that an optimizer step draws anywhere.
    selection
        Options of `BatchSelector`: `schedule`, `score_batch_size`, `softcap`, `indexer`, `id_field`, `audit`. The step
        of a schedule is the Trainer's `global_step`.
    *args, **kwargs
        The Trainer's own.

    Attributes
    ----------
    selector
        The `BatchSelector` that chooses; saved and restored with the optimizer, bit for bit. What it remembers is the
        same on all processes: it is saved once, and any number of processes take it up.

    Notes
    -----
    A policy that draws with importance weights (``uds.UDS(keep=0.25, temperature=0.1)``) makes the Trainer compute its
    loss from the logits, in TRL too, in place of a fused loss: each token's cross-entropy times its sample's weight. Of
    all chosen tokens its mean is then an unbiased estimate of the mean over the tokens of all candidates.

    The log gains `uds/scoring_seconds`, `uds/scoring_share` (of the time between two logs), `uds/kept_tokens_fraction`,
    and what the policy tells: for UDS `uds/utility_mean`, `uds/diversity_mean` and `uds/alpha`; means over the
    micro-batches since the last log. With several processes also `uds/gathered_bytes` and `uds/gathering_seconds` of a
    step, waiting for the slowest included.
    """

    def __init__(
        self,
        *args: Any,
        policy: uds.Policy | str | None = None,
        scope: Literal["micro", "step"] = "micro",
        ranks: Literal["rank", "global"] | Ranks = "rank",
        selection: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if scope not in ("micro", "step"):
            msg = f"`scope` must be 'micro' or 'step', got {scope!r}"
            raise ValueError(msg)
        policy = check_policy(policy)
        super().__init__(*args, **kwargs)
        self.scope: Literal["micro", "step"] = scope
        self.selector = BatchSelector(
            cast("Any", self.model), cast("uds.Policy", policy), ranks=ranks, **(selection or {})
        )
        _check_arguments(self.args, self.selector.ranks)
        self._uds_loss_weights: Any = None
        if draws_weights(policy):
            self._uds_apply_weights()
        self._uds_metrics: list[dict[str, float]] = []
        self._uds_logged_at = time.perf_counter()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        """Draw the step's micro-batches through the selector."""
        drawn = (self._prepare_inputs(batch) for batch in islice(epoch_iterator, num_batches))
        if self.selector.model is not self.model:  # FSDP may have wrapped it
            self.selector.attach(cast("Any", self.model))
        # importance weights are for the whole step's number of tokens: all batches of the step are chosen from at once
        weighted = draws_weights(self.selector.policy)
        alone = self.scope == "micro" and self.selector.ranks.size == 1 and not weighted
        kept = map(self._uds_select, drawn) if alone else iter(self._uds_select_step(drawn))
        return super().get_batch_samples(kept, num_batches, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the importance weights out of the batch, for the loss."""
        self._uds_loss_weights = inputs.pop(LOSS_WEIGHTS, None)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the selection's metrics to what the Trainer logs of training."""
        if self._uds_metrics and "loss" in logs:
            logs = {**logs, **self._uds_summary()}
        super().log(logs, *args, **kwargs)

    def _uds_select(self, batch: Any) -> Any:
        kept = self.selector(batch, step=self.state.global_step)
        if LOSS_WEIGHTS in kept:
            msg = (
                f"{type(self.selector.policy).__name__} returned importance weights, which the Trainer must know of in "
                "advance: give the policy an attribute `temperature` that is not None"
            )
            raise ValueError(msg)
        self._uds_chosen()
        return kept

    def _uds_select_step(self, drawn: Iterator[Any]) -> list[Any]:
        """The step's micro-batches at once, as many as were drawn: the Trainer counts them."""
        kept, _ = self.selector.select_step(
            drawn, step=self.state.global_step, scope=self.scope, fill=True, about=f"max_steps {self.state.max_steps}, "
        )
        if kept:
            self._uds_chosen()
        if kept and self.selector.empty and not self.model_accepts_loss_kwargs:
            msg = (
                "fewer samples were chosen than there are micro-batches, and the model's loss is a mean of its own, "
                "which nothing can be added to: keep more, or set a smaller `gradient_accumulation_steps`"
            )
            raise ValueError(msg)
        return kept

    def _uds_chosen(self) -> None:
        """After each choice."""
        self._uds_metrics.append(self.selector.metrics)

    def _uds_apply_weights(self) -> None:
        """Make the Trainer compute its loss from the logits, with the weight of each token."""
        coefficient = getattr(getattr(self.model, "config", None), "output_router_logits", False)
        split = getattr(getattr(self.args, "parallelism_config", None), "sp_size", 1) or 1
        other = [
            what
            for what, wanted in (
                ("`compute_loss_func`", self.compute_loss_func is not None),
                ("`label_smoothing_factor`", self.args.label_smoothing_factor > 0),
                ("`loss_type='dft'`", getattr(self.args, "loss_type", None) == "dft"),
                ("the auxiliary loss of `output_router_logits`", bool(coefficient)),
                ("sequence parallelism", split > 1),
            )
            if wanted
        ]
        if other:
            msg = (
                f"{type(self.selector.policy).__name__} draws with importance weights, which multiply the "
                f"cross-entropy of each token, and the Trainer computes another loss "
                f"({', '.join(other)}): leave that out, or choose without `temperature`"
            )
            raise ValueError(msg)
        self.compute_loss_func = self._uds_weighted_loss

    def _uds_weighted_loss(self, outputs: Any, labels: Any, *, num_items_in_batch: Any = None, **_: Any) -> Any:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        shift = not is_encoder_decoder(bare(cast("Any", self.model)))
        return weighted_loss(logits, labels, self._uds_loss_weights, num_items=num_items_in_batch, shift=shift)

    # Private methods of the Trainer, each with the reason why no public hook will do; test_transformers.py checks that
    # they exist with these parameters.

    def _set_signature_columns_if_needed(self) -> None:
        # the Trainer removes columns that the model's forward does not take, and only this list keeps one
        super()._set_signature_columns_if_needed()
        # called once before the selector is there; the Trainer keeps the list that it made
        selector = getattr(self, "selector", None)
        if selector is not None:
            wanted = [*selector.policy.needs.columns, *([selector.id_field] if selector.id_field else [])]
            known = self._signature_columns or []
            self._signature_columns = [*known, *(name for name in wanted if name not in known)]

    def _uds_summary(self) -> dict[str, float]:
        now = time.perf_counter()
        names = {name for metrics in self._uds_metrics for name in metrics}
        columns = {name: [metrics[name] for metrics in self._uds_metrics if name in metrics] for name in sorted(names)}
        summary = {f"uds/{name}": sum(values) / len(values) for name, values in columns.items()}
        summary["uds/scoring_seconds"] = sum(columns["scoring_seconds"])
        summary["uds/scoring_share"] = summary["uds/scoring_seconds"] / max(now - self._uds_logged_at, 1e-9)
        self._uds_metrics, self._uds_logged_at = [], now
        return summary

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # on_train_begin comes too late: checkpoints are loaded before it, and the state would be forgotten again;
        # a run that starts, or starts anew after running out of memory, remembers nothing; checkpoints are loaded later
        self.selector.reset(cast("Any", self.model))
        self._uds_metrics, self._uds_logged_at = [], time.perf_counter()
        return super()._inner_training_loop(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # on_save comes after the checkpoint is complete: a run that is killed in between would resume without its state
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            checkpoints.save(Path(output_dir) / _FILE, self.selector.state_dict(), self._uds_about())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # no callback is given the checkpoint's folder
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        found = self._uds_read(Path(checkpoint) / _FILE) if self.selector.ranks.rank == 0 else None
        found = self.selector.ranks.first(found)  # all remember the same, wherever files lie
        if isinstance(found, FileNotFoundError):
            warnings.warn(
                f"no {_FILE} in {checkpoint}: the checkpoint knows no selection, which starts with an empty memory",
                stacklevel=2,
            )
        elif isinstance(found, Exception):
            raise found
        else:
            state, about = found
            self.selector.load_state_dict(state, about=about)

    def _uds_read(self, file: Path) -> Any:
        """What the file holds, or the error, for all processes to raise."""
        try:
            return checkpoints.load(file, about=self._uds_about())
        except (ValueError, OSError) as error:
            return error

    def _uds_about(self) -> dict[str, Any]:
        ranks = self.selector.ranks.placement
        return {**checkpoints.describe(self.selector.policy), "scope": self.scope, "ranks": ranks}


def _check_arguments(args: Any, ranks: Ranks) -> None:
    if args.n_gpu > 1:
        msg = (
            f"the Trainer would copy the model to {args.n_gpu} GPUs in one process (DataParallel), which slows scoring "
            "down and splits the chosen batch: start one process a GPU with `torchrun` or `accelerate launch`, or show "
            "one GPU with CUDA_VISIBLE_DEVICES=0"
        )
        raise ValueError(msg)
    config = getattr(args, "parallelism_config", None)
    split = [name for name in ("tp_size", "cp_size", "sp_size") if (getattr(config, name, 1) or 1) > 1]
    if split and ranks.group is None:
        msg = (
            f"with {', '.join(split)} above 1, several processes hold the same samples, which would be chosen twice: "
            "give ranks=Ranks(group=...), the process group of data parallelism"
        )
        raise ValueError(msg)
