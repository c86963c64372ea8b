"""Policy features of batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import uds_core as uds

from .. import batches
from ..batches import entries
from ..ranks import GatheredPool, HeadRefreshed, Ranks
from . import models
from .glances import TokenReader
from .host_copies import HostCopies
from .layouts import Layouts
from .scorer import Scorer
from .sharded import ShardedScorer
from .shortlist import with_exact_scores
from .training_probe import TrainingProbe

__all__ = ["BatchScorer"]


class BatchScorer:
    """Compute a policy's features of batches, with a forward pass if the policy needs one.

    Parameters
    ----------
    model
        The model in training, as the loop calls it.
    policy
        The policy; schedules may change its fraction, and nothing else.
    ranks
        Processes that score together when the model is sharded.
    scorer, id_field, indexer, shift, sequences
        As of `BatchSelector`.
    **options
        Those of `Scorer`.

    Attributes
    ----------
    layouts
        The layout of the model's batches.
    layout
        That of the last batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        policy: uds.Policy,
        ranks: Ranks,
        *,
        scorer: Callable[..., Scorer] = Scorer,
        id_field: str | None = None,
        indexer: batches.Indexer | None = None,
        shift: bool | None = None,
        sequences: int | None = None,
        **options: Any,
    ) -> None:
        self.model, self.indexer = model, indexer
        self.layouts = Layouts(model, shift=shift, sequences=sequences or 1, measure=policy.needs.forward_pass)
        self.layout = batches.Layout()
        self._id_field, self._columns = id_field, policy.needs.columns
        self._reader = TokenReader(models.bare(model), policy.needs)
        self._scorer = scorer(model, **options) if policy.needs.forward_pass else None
        self.probe = None
        if self._scorer is not None:
            self._scorer.layouts = self.layouts
            self.probe = TrainingProbe(model, policy, self._scorer) if policy.needs.training_pass else None
        self._custom = scorer is not Scorer
        self._ranks, self._refreshed = ranks, 0
        self._sharded = ShardedScorer(model, ranks, **options) if policy.needs.forward_pass else None

    def view(self, batch: Mapping[str, Any], /) -> tuple[batches.SampleView, list[Any]]:
        """Return the samples of a batch, and their identities, which are not passed to the model."""
        ids: list[Any] = []
        beside: dict[str, torch.Tensor] = {}
        if isinstance(batch, Mapping) and (self._columns or self._id_field):
            batch, ids, beside = entries.apart(batch, id_field=self._id_field, fields=self._columns)
        self.layout = self.layouts.of(batch)
        samples = batches.view(batch, indexer=self.indexer, layout=self.layout, beside=beside)
        entries.check_one_each(len(samples), ids, beside, id_field=self._id_field)
        return samples, ids

    @functools.cached_property
    def _is_sharded(self) -> bool:
        """Checked at the first batch: weights may be sharded after the selector is constructed; the check is slow."""
        return models.is_sharded(self.model)

    def features(
        self,
        policy: uds.Policy | None,
        views: Sequence[batches.SampleView],
        /,
        *,
        choice: int = 0,
        state: Callable[[uds.Features], Any] | None = None,
    ) -> uds.Features:
        """Return the policy's features of the samples of several batches, in order.

        `choice`: its number. `state`: returns the policy's state, given features without logits; of the first choice
        by default.
        """
        copies = HostCopies() if self._scorer is None else self._scorer.copies
        unread = [view.unread() for view in views] + ([] if self.probe is None else [self.probe.unread()])
        copies.want({f"{i} {name}": x for i, some in enumerate(unread) for name, x in some.items()})
        features = self._features(policy, views, choice=choice, state=state)
        copies.read({})  # where the scoring pass has not read anything
        self._bring(views, [{name: copies.made[f"{i} {name}"] for name in some} for i, some in enumerate(unread)])
        return features

    def _features(
        self,
        policy: uds.Policy | None,
        views: Sequence[batches.SampleView],
        /,
        *,
        choice: int,
        state: Callable[[uds.Features], Any] | None,
    ) -> uds.Features:
        """Return the features; what the host reads of the batches may still be on their device."""
        if policy is None:
            return {}
        if self._scorer is None or self._sharded is None or not policy.needs.forward_pass_at(choice):
            return uds.pool([self._without_logits(policy, samples) for samples in views])
        if self._is_sharded:
            if policy.needs.glance:
                msg = f"{type(policy).__name__} does not support models with sharded weights: train with DDP"
                raise ValueError(msg)
            if self._custom:
                name = type(self._scorer).__name__ + ("" if self._scorer.depth is None else " with `depth`")
                msg = f"{name} does not support models with sharded weights: train with DDP"
                raise ValueError(msg)
            return self._sharded.examine_all(views, policy)
        with self._scorer.same_weights():
            if policy.needs.shortlist:
                return uds.pool([self._of_shortlist(policy, samples, state) for samples in views])
            return uds.pool([self._scorer.examine(samples, policy) for samples in views])

    def collect(self, *, always: bool) -> torch.Tensor | None:
        """Return the exact scores that the training pass gave, if there are all, or `always`; see `TrainingProbe`."""
        return None if self.probe is None else self.probe.collect(always=always)

    def gather(self, features: uds.Features, score: Callable[[], uds.Features], /, **options: Any) -> GatheredPool:
        """Return the candidates of all processes; `options`: those of `Ranks.gather`.

        If some processes have called `refresh_head` and others have not, all do and `score` again: where only one
        writes checkpoints, the others do not know of them.
        """
        while True:
            try:
                return self._ranks.gather(features, head=self._refreshed, **options)
            except HeadRefreshed as other:
                self.refresh_head()
                self._refreshed = other.number
            with self._ranks.together():
                features = score()

    def refresh_head(self) -> None:
        """Prepare a head that trains anew in the next pass; at a checkpoint, so that a resumed run does the same."""
        self._refreshed += 1
        for one in (self._scorer, self._sharded, self.probe):
            if one is not None:
                one.refresh_head()

    def _of_shortlist(
        self, policy: uds.Policy, samples: batches.SampleView, state: Callable[[uds.Features], Any] | None
    ) -> uds.Features:
        assert self._scorer is not None
        features = self._without_logits(policy, samples)
        before = None if state is None else state(features)
        view = functools.partial(batches.view, indexer=self.indexer, layout=self.layout)
        return with_exact_scores(features, samples, self._scorer.examine, view=view, policy=policy, state=before)

    def _bring(self, views: Sequence[batches.SampleView], brought: list[dict[str, torch.Tensor]]) -> None:
        """Give the views, and the probe, what they read on the host."""
        for view, values in zip(views, brought, strict=False):
            view.bring(values)
        if self.probe is not None:
            self.probe.bring(brought[-1])

    def _without_logits(self, policy: uds.Policy, samples: batches.SampleView) -> uds.Features:
        mask, labels = samples.mask, samples.labels
        if mask is None and labels is None:
            tokens = samples.tokens
            mask = torch.arange(int(tokens.max()))[None, :] < tokens[:, None]
        read: dict[str, Any] = {**samples.beside, **self._reader(samples)}
        if "glance" in read:  # the table may lie on another device than the batch
            device = read["glance"].device
            mask, labels = (None if x is None else x.to(device) for x in (mask, labels))
        ids = read.pop("id", None)
        return policy.examine(uds.Candidates(None, mask=mask, labels=labels, ids=ids, **read))
