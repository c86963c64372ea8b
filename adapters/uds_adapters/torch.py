"""`BatchSelector`: selection in any PyTorch loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

import uds_core as uds

from . import batches
from .forward import Scorer, outside_autocast

__all__ = ["BatchSelector"]

_STATE = "state."


class BatchSelector:
    """Hand it a batch of candidates; train on the batch that it returns.

    The batch size of the loader counts *candidates*: with ``keep=0.25`` and a loader that yields 32 samples, 8 are
    trained on.

    Parameters
    ----------
    model
        The model that is trained, as the loop calls it; a causal language model with `get_output_embeddings`.
    policy
        Any `uds_core` policy.

    Attributes
    ----------
    last
        The last `uds_core.Selection`, or None.
    last_indices
        The last chosen rows of their candidate batch, ascending, as they were trained.
    metrics
        Of the last call: means of the score's parts, numbers of the policy, `kept_tokens_fraction`, `scoring_seconds`.

    Examples
    --------
    >>> select = BatchSelector(model, uds.UDS(keep=0.25))  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     batch = select(batch)
    ...     model(**batch).loss.backward()
    """

    def __init__(self, model: torch.nn.Module, policy: uds.Policy) -> None:
        _check_policy(policy)
        self.model, self.policy = model, policy
        self.last: uds.Selection | None = None
        self.last_indices: list[int] = []
        self.metrics: dict[str, float] = {}
        self._scorer = Scorer(model) if policy.needs_logits else None
        self._state: Any = None
        self._loaded: dict[str, Any] | None = None

    def __call__(self, batch: Mapping[str, Any], /) -> Any:
        """The chosen samples of `batch`, in their order there, as the same type of mapping.

        Raises
        ------
        TypeError, ValueError
            Where the batch is no mapping, or its rows are no samples; see `batches`.
        """
        began = time.perf_counter()
        number = batches.size(batch)
        candidates = self._candidates(batch)
        with outside_autocast(candidates.like):
            features = self.policy.examine(candidates)
            self._restore(features)
            self.last, self._state = self.policy.choose(self._state, features)
        if self.last.weights is not None:
            msg = f"{type(self.policy).__name__} returned importance weights, which this adapter does not apply yet"
            raise ValueError(msg)
        indices = torch.sort(self.last.indices).values
        self.last_indices = indices.tolist()
        kept = batch if len(self.last_indices) == number else batches.take(batch, indices)
        self._measure(self.last, batch, kept, time.perf_counter() - began)
        return kept

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What the policy remembers, as a flat dict of tensors: safetensors and `weights_only` loading take it."""
        if self._loaded is not None:
            return {_STATE + name: torch.as_tensor(value) for name, value in self._loaded.items()}
        return {_STATE + name: torch.from_numpy(array.copy()) for name, array in uds.flatten(self._state).items()}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Take up what `state_dict` gave; checked against the policy's options at the next batch.

        Raises
        ------
        ValueError
            Where the names are not those of a selector's state.
        """
        unknown = [name for name in state if not name.startswith(_STATE)]
        if unknown:
            msg = f"not a selector's state: unknown entries {unknown[:5]}; expected names beginning with {_STATE!r}"
            raise ValueError(msg)
        self._state = None
        arrays = {name.removeprefix(_STATE): torch.as_tensor(value).cpu().numpy() for name, value in state.items()}
        self._loaded = arrays or None

    def reset(self, model: torch.nn.Module) -> None:
        """Forget everything, as if constructed anew for `model`."""
        self.model, self._scorer = model, Scorer(model) if self.policy.needs_logits else None
        self._state, self._loaded, self.last, self.last_indices, self.metrics = None, None, None, [], {}

    def _candidates(self, batch: Mapping[str, Any]) -> uds.Candidates:
        if self._scorer is not None:
            return self._scorer(batch)
        ids = batch["input_ids"] if "input_ids" in batch else batch["inputs_embeds"][..., 0]
        mask = batch.get("attention_mask")
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        return uds.Candidates(None, mask=mask, labels=batches.shifted_labels(batch))

    def _restore(self, features: uds.Features) -> None:
        # the policy's sizes are known only now
        if self._loaded is not None:
            self._state = uds.restore(self.policy.init(features), self._loaded)
            self._loaded = None

    def _measure(
        self, selection: uds.Selection, batch: Mapping[str, Any], kept: Mapping[str, Any], took: float
    ) -> None:
        metrics = {f"{name}_mean": float(part.nanmean()) for name, part in selection.parts.items()}
        metrics |= {name: float(value) for name, value in selection.metrics.items()}
        metrics["kept_tokens_fraction"] = batches.trained_tokens(kept) / max(batches.trained_tokens(batch), 1)
        metrics["scoring_seconds"] = took
        self.metrics = metrics


def _check_policy(policy: Any) -> None:
    if isinstance(policy, type) or not isinstance(policy, uds.Policy):
        msg = f"`policy` must be a policy such as uds.UDS(keep=0.25), got {policy!r}; uds.get(name) finds one by name"
        raise TypeError(msg)
    if getattr(policy, "temperature", None) is not None:
        msg = "`policy` draws samples with importance weights (`temperature`), which this adapter does not apply yet"
        raise ValueError(msg)
