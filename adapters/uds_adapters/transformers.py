"""Selection inside the Hugging Face Trainer."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uds_core as uds

from .torch import BatchSelector

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object  # the mixin alone imports no transformers

__all__ = ["UDSTrainer", "UDSTrainerMixin"]


class UDSTrainerMixin(Trainer):
    """Puts a policy into any subclass of `transformers.Trainer`: ``class Mine(UDSTrainerMixin, AnyTrainer)``.

    `per_device_train_batch_size` counts *candidates*: with ``keep=0.25`` and a batch size of 32, 8 samples are trained
    on in each micro-batch. Each micro-batch is chosen from when the Trainer draws it, before it counts the tokens that
    the loss is divided by, so gradients are those of a Trainer that was fed the chosen samples.

    Parameters
    ----------
    policy
        Any `uds_core` policy.
    *args, **kwargs
        The Trainer's own.

    Attributes
    ----------
    selector
        The `BatchSelector` that chooses; saved and restored with the optimizer, bit for bit.

    Notes
    -----
    The log gains `uds/scoring_seconds`, `uds/scoring_share` (of the time between two logs), `uds/kept_tokens_fraction`,
    and what the policy tells: for UDS `uds/utility_mean`, `uds/diversity_mean` and `uds/alpha`; means over the
    micro-batches since the last log.
    """

    def __init__(self, *args: Any, policy: uds.Policy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.selector = BatchSelector(cast("Any", self.model), policy)
        self._uds_metrics: list[dict[str, float]] = []
        self._uds_logged_at = time.perf_counter()

    def get_batch_samples(self, epoch_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        """Draw the step's micro-batches through the selector."""
        return super().get_batch_samples(_Selecting(self, epoch_iterator), *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the selection's metrics to what the Trainer logs of training."""
        if self._uds_metrics and "loss" in logs:
            logs = {**logs, **self._uds_summary()}
        super().log(logs, *args, **kwargs)

    def _uds_select(self, batch: Any) -> Any:
        kept = self.selector(self._prepare_inputs(batch))
        self._uds_metrics.append(self.selector.metrics)
        return kept

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
        # a run that starts, or starts anew after running out of memory, remembers nothing; checkpoints are loaded later
        self.selector.reset(cast("Any", self.model))
        self._uds_metrics, self._uds_logged_at = [], time.perf_counter()
        return super()._inner_training_loop(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        from safetensors.torch import save_file

        Path(output_dir).mkdir(parents=True, exist_ok=True)  # other processes may arrive before the first one made it
        save_file(self.selector.state_dict(), self._uds_file(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        from safetensors.torch import load_file

        file = self._uds_file(checkpoint)
        if not file.is_file():
            warnings.warn(
                f"no {file}: the checkpoint knows no selection, which starts with an empty memory", stacklevel=2
            )
            return
        self.selector.load_state_dict(load_file(file))

    def _uds_file(self, folder: str) -> Path:
        return Path(folder) / f"uds_{self.args.process_index}.safetensors"


class _Selecting:
    """An iterator object, not a generator: closing it must not exhaust the Trainer's own."""

    def __init__(self, trainer: UDSTrainerMixin, batches: Any) -> None:
        self.trainer, self.batches = trainer, batches

    def __iter__(self) -> _Selecting:
        return self

    def __next__(self) -> Any:
        return self.trainer._uds_select(next(self.batches))


if TYPE_CHECKING:

    class UDSTrainer(UDSTrainerMixin):
        """`transformers.Trainer` with a policy; see `UDSTrainerMixin`."""


def __getattr__(name: str) -> Any:
    # made on demand, so that the mixin alone does not import transformers
    if name != "UDSTrainer":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from transformers import Trainer

    members = {"__doc__": UDSTrainerMixin.__doc__, "__module__": __name__}
    globals()[name] = type(name, (UDSTrainerMixin, Trainer), members)
    return globals()[name]
