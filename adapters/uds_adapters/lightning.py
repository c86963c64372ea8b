"""Batch selection for the Lightning Trainer."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

import uds_core as uds

from .selection.checks import check_policy, check_weights_applied, only_batch
from .torch import BatchSelector

__all__ = ["UDSCallback"]


class UDSCallback(Callback):
    """``Trainer(callbacks=[UDSCallback(policy)])``: `training_step` receives the chosen samples of each batch.

    The loader's batch size counts *candidates*: with ``keep=0.25`` and a batch size of 32, 8 samples are trained on.
    Batches must be dictionaries: their contents are replaced just before `training_step`, on their device and with the
    current weights. Validation, testing and prediction receive whole batches.

    Parameters
    ----------
    policy
        Any `uds_core` policy, or its text, as in ``"uds:keep=0.25"``.
    model
        Name of the attribute of the LightningModule that holds the language model, such as ``"model"``. Default:
        the module itself, or the one model inside it that has output embeddings.
    **options
        Those of `BatchSelector`: `schedule` (its step is the Trainer's `global_step`), `score_batch_size` and so on.

    Attributes
    ----------
    selector
        The `BatchSelector`; None before `fit`. Saved in Lightning's checkpoints, and restored from them.

    Raises
    ------
    TypeError
        While fitting, if batches are not dictionaries.
    ValueError
        When fitting starts, if there is no language model, more than one, or more than one process.

    Notes
    -----
    A policy that samples with importance weights adds `loss_weights` to each batch: `training_step` begins with
    ``weights = batch.pop("loss_weights")`` and returns `uds_adapters.torch.weighted_loss`; see `BatchSelector`.

    Metrics of each batch are logged as `uds/utility_mean` and so on. The loss is the one that `training_step` returns:
    with ``accumulate_grad_batches`` Lightning averages the means of the batches, with or without selection. Lightning
    does not restore torch's random generators, so runs with dropout do not resume bit for bit, even without selection.

    Examples
    --------
    >>> trainer = Trainer(callbacks=[UDSCallback(uds.UDS(keep=0.25))])  # doctest: +SKIP
    """

    def __init__(self, policy: uds.Policy | str, *, model: str | None = None, **options: Any) -> None:
        self.policy, self.model, self.options = check_policy(policy), model, options
        self.selector: BatchSelector | None = None
        self._loaded: dict[str, Any] = {}
        self._batch: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the selector for the language model, and restore its state from a checkpoint."""
        if trainer.world_size > 1:
            msg = (
                f"`UDSCallback` supports one process, the Trainer has {trainer.world_size}: use devices=1 and "
                "num_nodes=1, or call a `BatchSelector` in `training_step` and save its `state_dict()` on each process"
            )
            raise ValueError(msg)
        self.selector = BatchSelector(_language_model(pl_module, self.model, self.policy), self.policy, **self.options)
        if self._loaded:
            self.selector.load_state_dict(self._loaded)
            self._loaded = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Replace the contents of `batch` by the chosen samples, and log the selection's metrics."""
        del batch_idx
        if not isinstance(batch, MutableMapping):
            msg = (
                f"`UDSCallback` needs batches that are dictionaries of tensors, got {type(batch).__name__}: let the "
                "collator return a dictionary, or call a `BatchSelector` in `training_step`"
            )
            raise TypeError(msg)
        assert self.selector is not None  # fitting has started
        with trainer.precision_plugin.forward_context():
            selected = only_batch(self.selector.select_step([batch], step=trainer.global_step)[0])
        if selected is not batch:
            batch.clear()
            batch.update(selected)
        self._batch = batch
        pl_module.log_dict({f"uds/{name}": value for name, value in self.selector.metrics.items()}, batch_size=1)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Check that `training_step` removed the importance weights from its batch."""
        del trainer, pl_module, loss
        batch, self._batch = self._batch, None
        check_weights_applied(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the selector."""
        return self._loaded if self.selector is None else self.selector.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store a `state_dict`, which the next `on_fit_start` restores."""
        self.selector, self._loaded = None, dict(state_dict)


def _language_model(module: torch.nn.Module, name: str | None, policy: uds.Policy) -> torch.nn.Module:
    if name is not None:
        model = module
        for part in name.split("."):
            model = getattr(model, part, None)
        if not isinstance(model, torch.nn.Module):
            msg = f"`model` names no module: {type(module).__name__} has no submodule {name!r}"
            raise ValueError(msg)
        return model
    candidates = list(_outermost(module, ""))
    if len(candidates) == 1:
        return candidates[0][1]
    if not policy.needs.forward_pass:
        return module
    names = [path for path, _ in candidates]
    msg = (
        f"{type(module).__name__} must contain exactly one model with output embeddings, got "
        f"{names or 'none'}: name its attribute, as in UDSCallback(policy, model={names[0] if names else 'model'!r})"
    )
    raise ValueError(msg)


def _outermost(module: torch.nn.Module, path: str) -> Any:
    """Yield names and modules that have output embeddings and are not inside another such module."""
    find = getattr(module, "get_output_embeddings", None)
    if callable(find) and find() is not None:
        yield path, module
        return
    for name, child in module.named_children():
        yield from _outermost(child, f"{path}.{name}" if path else name)
