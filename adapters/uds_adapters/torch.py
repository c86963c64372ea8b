"""`BatchSelector`: selection in any PyTorch loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

import uds_core as uds

from . import batches, checkpoints, entries, models
from .audit import Audit
from .forward import Scorer
from .probe import outside_autocast
from .schedule import Schedule

__all__ = ["BatchSelector"]

_STATE, _CHOICES = "state.", "choices"


class BatchSelector:
    """Hand it a batch of candidates; train on the batch that it returns.

    The batch size of the loader counts *candidates*: with ``keep=0.25`` and a loader that yields 32 samples, 8 are
    trained on.

    Parameters
    ----------
    model
        The model that is trained, as the loop calls it; a language model with `get_output_embeddings`.
    policy
        Any `uds_core` policy.
    schedule
        A `Schedule`: warm-up, interval, and a share that changes. Default: every batch is chosen from.
    score_batch_size
        Samples in one scoring pass; None: all at once. Halved, with a warning, where memory runs out.
    softcap
        ``"exact"`` or ``"ignore"``, for models that cap their logits; see `Scorer`.
    indexer
        ``indexer(batch, indices) -> batch``, for batches that cannot be taken apart without you, as with images.
    id_field
        Entry of the batches with each sample's identity in the data set; it is taken out before the model sees them.
    audit
        An `Audit` that records every candidate's score and fate.

    Attributes
    ----------
    last
        The last `uds_core.Selection`, or None where the schedule let the whole batch pass.
    last_indices
        The last chosen rows of their candidates, ascending, as they were trained.
    last_ids
        Their identities, where there is an `id_field`.
    tokens
        Number of tokens with loss in what was kept last: what a summed loss is to be divided by.
    metrics
        Of the last call: means of the score's parts, numbers of the policy, `kept_tokens_fraction`, `scoring_seconds`.

    Examples
    --------
    >>> select = BatchSelector(model, uds.UDS(keep=0.25))  # doctest: +SKIP
    >>> for batch in loader:  # doctest: +SKIP
    ...     batch = select(batch)
    ...     model(**batch).loss.backward()
    """

    def __init__(
        self,
        model: torch.nn.Module,
        policy: uds.Policy,
        *,
        schedule: Schedule | None = None,
        score_batch_size: int | None = None,
        softcap: Literal["exact", "ignore"] = "exact",
        indexer: batches.Indexer | None = None,
        id_field: str | None = None,
        audit: Audit | None = None,
    ) -> None:
        _check_policy(policy)
        self.policy, self.schedule = policy, Schedule() if schedule is None else schedule
        self.schedule.check(policy)
        self.indexer, self.id_field, self.audit = indexer, id_field, audit
        self._scoring: dict[str, Any] = {"softcap": softcap, "score_batch_size": score_batch_size}
        self.reset(model)

    def reset(self, model: torch.nn.Module) -> None:
        """Forget everything, as if constructed anew for `model`."""
        self.model = model
        self._scorer = Scorer(model, **self._scoring) if self.policy.needs_logits else None
        self._shift = not models.is_encoder_decoder(models.bare(model))
        self._state: Any = None
        self._loaded: dict[str, Any] | None = None
        self._about: Mapping[str, Any] | None = None
        self.choices = 0
        self.last: uds.Selection | None = None
        self.last_indices: list[int] = []
        self.last_ids: list[Any] = []
        self.tokens, self.metrics = 0, {}

    def __call__(self, batch: Mapping[str, Any], /, *, step: int | None = None) -> Any:
        """The chosen samples of `batch`, in their order there, as the same type of mapping.

        `step`: number of the optimizer step, for the schedule; default: how often the selector was called before.

        Raises
        ------
        TypeError, ValueError
            Where the batch is no mapping, or its samples cannot be told apart; see `batches.view`.
        """
        samples, ids = self._view(batch)
        chosen = self._chosen([samples], ids, step)
        return samples.batch if len(chosen) == len(samples) else samples.take(chosen)

    def window(self, window: Sequence[Mapping[str, Any]], /, *, step: int | None = None) -> tuple[list[Any], int]:
        """One choice from the samples of several batches, as an optimizer step accumulates them.

        Returns
        -------
        tuple of a list of batches and a number
            The chosen samples, split evenly into as many batches (fewer where fewer were chosen), and the number of
            their tokens with loss, which a summed loss of the whole step is to be divided by.

        Raises
        ------
        TypeError, ValueError
            As in calling it; and where the batches cannot be joined.
        """
        if not window:
            msg = "`window` must hold the batches of one step, got none"
            raise ValueError(msg)
        views, ids = zip(*map(self._view, window), strict=True)
        chosen = self._chosen(list(views), [one for some in ids for one in some], step)
        if len(chosen) == sum(map(len, views)):
            return [samples.batch for samples in views], self.tokens
        joined = views[0] if len(views) == 1 else self._joined(views)
        return [joined.take(part) for part in chosen.tensor_split(min(len(views), len(chosen)))], self.tokens

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is remembered, as a flat dict of tensors: safetensors and `weights_only` loading take it."""
        arrays = uds.flatten(self._state) if self._loaded is None else self._loaded
        state = {_STATE + name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return {_CHOICES: torch.tensor(self.choices), **state}

    def load_state_dict(self, state: Mapping[str, Any], /, *, about: Mapping[str, Any] | None = None) -> None:
        """Take up what `state_dict` gave; checked against the policy's options at the next batch.

        `about`: the policy that was saved, as `checkpoints.describe` tells it, to name what differs.

        Raises
        ------
        ValueError
            Where the names are not those of a selector's state.
        """
        unknown = [name for name in state if not name.startswith(_STATE) and name != _CHOICES]
        if unknown or _CHOICES not in state:
            msg = (
                f"not a selector's state: unknown entries {unknown[:5]}; expected {_CHOICES!r} and names beginning "
                f"with {_STATE!r}"
            )
            raise ValueError(msg)
        arrays = {name: torch.as_tensor(value).cpu().numpy() for name, value in state.items()}
        self.choices = int(arrays.pop(_CHOICES))
        self._state, self._about = None, about
        self._loaded = {name.removeprefix(_STATE): array for name, array in arrays.items()} or None

    def _view(self, batch: Mapping[str, Any]) -> tuple[batches.Samples, list[Any]]:
        """The samples of a batch, and their identities, of which the model knows nothing."""
        ids: Any = []
        if self.id_field is not None and isinstance(batch, Mapping):
            if self.id_field not in batch:
                msg = f"`batch` has no {self.id_field!r} (`id_field`); it has {sorted(batch)}"
                raise ValueError(msg)
            ids = batch[self.id_field]
            ids = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
            batch = entries.same_kind(batch, {name: batch[name] for name in batch if name != self.id_field})
        return batches.view(batch, indexer=self.indexer, shift=self._shift), ids

    def _joined(self, views: Sequence[batches.Samples]) -> batches.Samples:
        if self.indexer is not None:
            msg = "batches that need an `indexer` cannot be joined: choose from each of them (scope='micro')"
            raise ValueError(msg)
        joined = batches.join([samples.batch for samples in views], shift=self._shift)
        return batches.view(joined, shift=self._shift)

    def _chosen(self, views: list[batches.Samples], ids: list[Any], step: int | None) -> torch.Tensor:
        """Indices (k,) of the chosen in the pool of all views, ascending."""
        began = time.perf_counter()
        step = self.choices if step is None else step
        policy = self.schedule.policy(self.policy, step)
        tokens = torch.cat([samples.tokens for samples in views])
        if policy is None:
            self.last, indices = None, torch.arange(len(tokens))
        else:
            self.last = self._choose(policy, views)
            indices = self.last.indices.sort().values.cpu()
            self._record(self.last, ids, indices, tokens, step)
        self.choices += 1
        self.last_indices = indices.tolist()
        self.last_ids = [ids[i] for i in self.last_indices] if ids else []
        self.tokens = int(tokens[indices].sum())
        self.metrics = _metrics(self.last)
        self.metrics["kept_tokens_fraction"] = self.tokens / max(int(tokens.sum()), 1)
        self.metrics["scoring_seconds"] = time.perf_counter() - began
        return indices

    def _choose(self, policy: uds.Policy, views: list[batches.Samples]) -> uds.Selection:
        features = uds.pool([self._features(policy, samples) for samples in views])
        with outside_autocast(features["length"]):
            self._restore(features)
            selection, state = policy.choose(self._state, features)
        if selection.weights is not None:
            msg = f"{type(policy).__name__} returned importance weights, which this adapter does not apply yet"
            raise ValueError(msg)
        self._state = state
        return selection

    def _features(self, policy: uds.Policy, samples: batches.Samples) -> uds.Features:
        if self._scorer is not None:
            return self._scorer.examine(samples, policy)
        mask, labels = samples.mask, samples.labels
        if mask is None and labels is None:
            tokens = samples.tokens
            mask = torch.arange(int(tokens.max()))[None, :] < tokens[:, None]
        return policy.examine(uds.Candidates(None, mask=mask, labels=labels))

    def _restore(self, features: uds.Features) -> None:
        # the policy's sizes are known only now
        if self._loaded is None:
            return
        try:
            self._state = uds.restore(self.policy.init(features), self._loaded)
        except ValueError as error:
            if self._about is None:
                raise
            different = "; ".join(checkpoints.differences(self._about, checkpoints.describe(self.policy)))
            msg = f"{error} ({different or 'the options are the same'})"
            raise ValueError(msg) from error
        self._loaded = self._about = None

    def _record(
        self, selection: uds.Selection, ids: list[Any], indices: torch.Tensor, tokens: torch.Tensor, step: int
    ) -> None:
        if self.audit is not None:
            parts = {**selection.table(), "tokens": tokens}
            self.audit.record(self.choices, ids or None, parts, indices.tolist(), optimizer_step=step)


def _metrics(selection: uds.Selection | None) -> dict[str, float]:
    """Numbers about a choice, none where there was none."""
    if selection is None:
        return {}
    metrics = {f"{name}_mean": float(part.nanmean()) for name, part in selection.parts.items()}
    return metrics | {name: float(value) for name, value in selection.metrics.items()}


def _check_policy(policy: Any) -> None:
    if isinstance(policy, type) or not isinstance(policy, uds.Policy):
        msg = f"`policy` must be a policy such as uds.UDS(keep=0.25), got {policy!r}; uds.get(name) finds one by name"
        raise TypeError(msg)
    if getattr(policy, "temperature", None) is not None:
        msg = "`policy` draws samples with importance weights (`temperature`), which this adapter does not apply yet"
        raise ValueError(msg)
