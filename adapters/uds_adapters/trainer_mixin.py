"""Batch selection for any subclass of the Hugging Face Trainer."""

from __future__ import annotations

import copy
import functools
import time
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

import uds_core as uds

from . import checkpoints, trainer_checkpoints
from .batches import LOSS_WEIGHTS
from .batches.examples import CheckedCollator
from .batches.loss import weighted_loss
from .finite_check import finite_check
from .kept_columns import KeptColumns
from .ranks import Ranks
from .selection.checks import check_policy
from .selection.metrics import Means
from .step_plan import StepPlan, gathering_from, set_gradients_to_zero, without_gradient
from .torch import BatchSelector
from .trainer_batches import ChosenIds, check_batch, known_sequences

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the mixin alone imports no transformers

__all__ = ["UDSTrainerMixin"]

_FILE = trainer_checkpoints.FILE


class UDSTrainerMixin(Trainer):
    """Add a policy to any subclass of `transformers.Trainer`: ``class Mine(UDSTrainerMixin, AnyTrainer)``.

    `per_device_train_batch_size` counts *candidates*: with ``keep=0.25`` and a batch size of 32, 8 samples of
    each micro-batch are used for training. They are chosen when the Trainer reads its batches, before it counts the
    tokens that the loss is divided by, so the gradients are those of a Trainer that received the chosen samples.

    Parameters
    ----------
    policy
        Any `uds_core` policy, or its text, as in ``"uds:keep=0.25"``; required.
    scope
        ``"micro"``: select from each micro-batch. ``"step"``: all micro-batches of an optimizer step form one pool,
        and the chosen samples are split evenly over as many batches, or over fewer when there are fewer samples.
    ranks
        With several processes: ``"rank"`` selects the best of each process's own candidates; ``"global"`` selects the
        best of all processes' candidates and divides them evenly. Or a `uds_adapters.ranks.Ranks`. So
        ``scope="step", ranks="global"`` makes one pool of all candidates of an optimizer step.
    selection
        Options of `BatchSelector`: `schedule`, `score_batch_size`, `softcap`, `head_tolerance`, `compile`, `indexer`,
        `shift`, `sequences`, `id_field`, `audit`. The step of a schedule is the Trainer's `global_step`.
    *args, **kwargs
        Those of the Trainer.

    Attributes
    ----------
    selector
        The `BatchSelector`; saved and restored with the optimizer, bit for bit. Its state is the same on all
        processes: it is saved once, and any number of processes can load it.

    Notes
    -----
    With a policy that samples with importance weights (``uds.UDS(keep=0.25, temperature=0.1)``), the Trainer computes
    its loss from the logits, in TRL too, instead of a fused loss: each token's cross-entropy times its sample's
    weight. The mean over all chosen tokens is then an unbiased estimate of the mean over the tokens of all candidates.

    The log gains `uds/scoring_seconds`, `uds/scoring_share` (of the time between two logs), `uds/kept_tokens_fraction`,
    and the policy's metrics, for UDS `uds/utility_mean`, `uds/diversity_mean` and `uds/alpha`; means over the
    micro-batches since the last log. With several processes also `uds/gathered_bytes` and `uds/gathering_seconds` of a
    step, which includes waiting for the slowest process.
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
        selection = {"sequences": known_sequences(self), **(selection or {})}
        self._uds_sequences = selection["sequences"]
        self.selector = BatchSelector(cast("Any", self.model), cast("uds.Policy", policy), ranks=ranks, **selection)
        _check_arguments(self.args, self.selector.ranks)
        self._uds_plan = StepPlan(self.selector.ranks.size)
        # on the instance, so that a `training_step` of no class, above or below this one, sees a batch without samples
        self.training_step: Any = self._uds_training_step
        self._uds_finite: Any = finite_check()
        self.add_callback(self._uds_finite)
        self._uds_loss_weights: Any = None
        self._uds_chosen_ids = ChosenIds()
        if policy.needs.weights:
            self._uds_apply_weights()
        self._uds_metrics = Means()
        self._uds_logged_at = time.perf_counter()

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; True resumes from the newest whole checkpoint, with a warning where a newer one was cut off."""
        given, process = resume_from_checkpoint, self.args.process_index
        given = trainer_checkpoints.resumable(given, output=str(self.args.output_dir), rank=process)
        return super().train(given, *args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """Return the loader. Its collator keeps the columns that the selector reads, and is checked.

        It must be known which sequences of a batch are of one example; see `CheckedCollator`.
        """
        collate = self.data_collator
        self.data_collator = CheckedCollator(KeptColumns(collate, self._uds_columns()), self._uds_sequences)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collate

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **kwargs: Any) -> Any:
        """Return the selected micro-batches of the step."""
        drawn = (self._uds_drawn(batch) for batch in islice(epoch_iterator, num_batches))
        if self.selector.model is not self.model:  # FSDP may have wrapped it
            self.selector.attach(cast("Any", self.model))
        # importance weights depend on the whole step's number of tokens, so the step's batches are selected together
        weighted = self.selector.policy.needs.weights
        separate = self.scope == "micro" and self.selector.ranks.size == 1 and not weighted
        self._uds_plan = StepPlan(self.selector.ranks.size)
        for candidates in ([batch] for batch in drawn) if separate else (drawn,):
            self._uds_select(candidates)
        return super().get_batch_samples(iter(self._uds_plan.batches), num_batches, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Remove the importance weights from the batch, and store them for the loss."""
        self._uds_chosen_ids.compare(inputs)
        self._uds_loss_weights = inputs.pop(LOSS_WEIGHTS, None)
        for name in self._uds_columns():  # of an evaluation batch
            inputs.pop(name, None)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _uds_columns(self) -> list[str]:
        """Return the columns of the data set that go to the selector."""
        id_field = self.selector.id_field
        return [*self.selector.policy.needs.columns, *([id_field] if id_field else [])]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the selection's metrics to the training log."""
        if self._uds_metrics and "loss" in logs:
            logs = {**logs, **self._uds_summary()}
        super().log(logs, *args, **kwargs)

    def _uds_drawn(self, batch: Any) -> Any:
        """Return a batch on the device, without `_prepare_inputs`, which runs once, for what is chosen."""
        check_batch(self, batch)
        return self._prepare_input(batch)

    def _uds_training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Call `training_step` for a micro-batch with samples. One without any changes nothing; see `StepPlan`."""
        training_step = functools.partial(type(self).training_step, self)
        plan, nothing = self._uds_plan, torch.zeros((), device=self.args.device)
        trained_by = plan.trained_by(inputs)
        if not any(trained_by):
            if plan.nothing_chosen and self.accelerator.scaler is not None:
                set_gradients_to_zero(model, self.accelerator.scaler)  # which raises where there is no gradient
            return nothing
        if plan.divisor is not None:
            self.current_gradient_accumulation_steps = plan.divisor
        with gathering_from(self.accelerator, trained_by):
            if trained_by[self.selector.ranks.rank]:
                self._uds_chosen_ids.store(inputs)
                loss = training_step(model, inputs, *args, **kwargs)
                self._uds_finite.losses.append(loss)
                return loss
            with without_gradient(self.accelerator):
                training_step(model, copy.copy(plan.stand_in), *args, **kwargs)
            return nothing

    def _uds_select(self, candidates: Iterable[Any]) -> None:
        """Select from micro-batches of the step, and add as many to its plan, because the Trainer counts them."""
        selector = self.selector
        chosen, _ = selector.select_step(
            candidates,
            step=self.state.global_step,
            scope=self.scope,
            fill=True,
            about=f"max_steps {self.state.max_steps}, ",
            loader=self.callback_handler.train_dataloader,
        )
        if not selector.policy.needs.weights and any(LOSS_WEIGHTS in batch for batch in chosen):
            msg = (
                f"{type(selector.policy).__name__} returned importance weights, which the Trainer must know from the "
                "start: give the policy `needs` with weights=True"
            )
            raise ValueError(msg)
        if chosen:
            self._uds_plan.add(chosen, selector.trained_by, selector.stand_in)
            self._uds_chosen()

    def _uds_chosen(self) -> None:
        """Collect the metrics of the last selection."""
        self._uds_metrics.add(self.selector.metrics)

    def _uds_apply_weights(self) -> None:
        """Make the Trainer compute its loss from the logits, weighted per token."""
        coefficient = getattr(getattr(self.model, "config", None), "output_router_logits", False)
        split = getattr(getattr(self.args, "parallelism_config", None), "sp_size", 1) or 1
        other = [
            option
            for option, enabled in (
                ("`compute_loss_func`", self.compute_loss_func is not None),
                ("`label_smoothing_factor`", self.args.label_smoothing_factor > 0),
                ("`loss_type='dft'`", getattr(self.args, "loss_type", None) == "dft"),
                ("the auxiliary loss of `output_router_logits`", bool(coefficient)),
                ("sequence parallelism", split > 1),
            )
            if enabled
        ]
        if other:
            msg = (
                f"{type(self.selector.policy).__name__} samples with importance weights, which multiply the "
                f"cross-entropy of each token, but the Trainer computes another loss "
                f"({', '.join(other)}): remove that option, or use a policy without importance weights"
            )
            raise ValueError(msg)
        self.compute_loss_func = self._uds_weighted_loss

    def _uds_weighted_loss(self, outputs: Any, labels: Any, *, num_items_in_batch: Any = None, **_: Any) -> Any:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        options = {"num_items": num_items_in_batch, "shift": self.selector.layout.shift}
        return weighted_loss(logits, labels, self._uds_loss_weights, **options)

    # Private methods of the Trainer, each with the reason why no public hook is enough; test_transformers.py checks
    # that they exist with these parameters.

    def _set_signature_columns_if_needed(self) -> None:
        # the Trainer removes columns that the model's forward does not accept, unless they are in this list
        super()._set_signature_columns_if_needed()
        # called once before the selector exists; the Trainer stores the resulting list
        selector = getattr(self, "selector", None)
        if selector is not None:
            known = self._signature_columns or []
            self._signature_columns = [*known, *(name for name in self._uds_columns() if name not in known)]

    def _uds_summary(self) -> dict[str, float]:
        now = time.perf_counter()
        summary = {f"uds/{name}": mean for name, mean in self._uds_metrics.means().items()}
        summary["uds/scoring_seconds"] = self._uds_metrics.sum("scoring_seconds")
        summary["uds/scoring_share"] = summary["uds/scoring_seconds"] / max(now - self._uds_logged_at, 1e-9)
        self._uds_metrics, self._uds_logged_at = Means(), now
        return summary

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        # on_train_begin is too late: checkpoints are loaded before it, and a reset there would clear their state;
        # a run that starts, or restarts after running out of memory, begins with an empty state
        self.selector.reset(cast("Any", self.model))
        self._uds_metrics, self._uds_logged_at = Means(), time.perf_counter()
        return super()._inner_training_loop(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # on_save runs after the checkpoint is complete: a run killed in between would resume without selector state
        super()._save_optimizer_and_scheduler(output_dir)
        state = self.selector.state_dict()  # on all processes, which prepare their heads anew
        if self.args.should_save:
            about = {**self._uds_about(), "processes": self.args.world_size}
            checkpoints.save(Path(output_dir) / _FILE, state, about)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # no callback receives the checkpoint's folder
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        loaded = self._uds_read(Path(checkpoint) / _FILE) if self.selector.ranks.rank == 0 else None
        loaded = self.selector.ranks.first(loaded)  # the state is the same on all processes, which may not share files
        if isinstance(loaded, FileNotFoundError):
            warnings.warn(
                f"no {_FILE} in {checkpoint}: the checkpoint has no selection state: "
                "selection starts with an empty memory",
                stacklevel=2,
            )
        elif isinstance(loaded, Exception):
            raise loaded
        else:
            state, about = loaded
            policy = {name: about[name] for name in ("policy", "options")}
            self.selector.load_state_dict(state, about=policy)

    def _uds_read(self, file: Path) -> Any:
        """Return the contents of the file, or the error, so that all processes can raise it."""
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
