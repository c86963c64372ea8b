"""Scoring with sharded models (FSDP2, ZeRO-3)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

import uds_core as uds

from .. import batches
from ..ranks import RankError, Ranks
from . import models
from .head_probe import HeadProbe, undisturbed
from .heads import After, Linear
from .layer_probe import LayerProbe
from .scorer import Scorer, check_whole

__all__ = ["ShardedScorer"]


class ShardedScorer(Scorer):
    """A `Scorer` that uses the head inside the forward pass, just before it runs, when its weight is gathered.

    Parameters
    ----------
    model
        The sharded model, as the loop calls it.
    ranks
        Its processes. Each pass gathers weights from all of them, so all make the same number of passes.
    **options
        Those of `Scorer`.

    Notes
    -----
    The model's transformation of its head's output is determined by a pass of one sample, at the first call, and
    verified in every later pass. For a frozen head only derived values are stored, never its weight: a process holds
    no more of the head than its shard and what the pass itself gathers. A head that is not linear, or a lack of
    memory, is an error here: if one process made an extra pass alone, the others would wait for it.
    """

    def __init__(self, model: torch.nn.Module, ranks: Ranks, **options: Any) -> None:
        super().__init__(model, **options)
        self._ranks = ranks
        self._after: After | None = None
        self._vocab = 0
        self._derived: tuple[float, uds.Head] | None = None

    def examine_all(self, views: Sequence[batches.SampleView], policy: uds.Policy) -> uds.Features:
        """Return the policy's features of the samples of several batches, in order."""
        check_whole(policy, self.score_batch_size)
        pieces = [piece for samples in views for piece in samples.split(self.score_batch_size or len(samples))]
        number = self._ranks.most(len(pieces), about="sharded scoring")
        one = pieces[0].split(1)[0]
        self._refresh()
        with self._pass_errors(), undisturbed(self.model):
            if self._after is None:
                self._determine_transformation(one)
            features = [self._pass(piece, policy) for piece in pieces]
            for _ in range(number - len(pieces)):
                self._pass(one, policy)
        return uds.pool(features)

    @contextlib.contextmanager
    def _pass_errors(self) -> Iterator[None]:
        """Turn errors into `RankError`: other processes wait in the pass, and end only when this process does."""
        try:
            yield
        except Exception as error:
            msg = f"scoring failed on rank {self._ranks.rank} during a pass shared by all processes: {error}"
            raise RankError(msg) from error

    def _determine_transformation(self, samples: batches.SampleView) -> None:
        with HeadProbe(self._reader.module, self._reader.linear) as probe:
            logits = self._forward(models.inputs_for(self._bare, samples.inputs, samples.labels))
        self._after = None if probe.hidden is None else self._reader.after(probe.result, logits)
        self._vocab = logits.shape[-1]
        self._reader.forget()
        if self._after is None:
            msg = (
                f"the logits of {type(self._bare).__name__} do not come from a linear head, and full logits are "
                "not supported with sharded weights: use a policy without logits, or train with DDP"
            )
            raise TypeError(msg)

    def _pass(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """Return the features of one forward pass, computed before the head runs."""
        features: list[uds.Features] = []

        def inside(last: torch.Tensor, *args: Any, **kwargs: Any) -> Linear:
            linear = self._reader.linear(last, *args, **kwargs)
            hidden = probe.hidden
            if hidden is not None and linear.weight is not None and self._after is not None:
                head = self._prepared(self._reader.head(linear, self._after, self._vocab))
                through = head(samples.arrange(hidden))
                states = {number: samples.arrange(output) for number, output in layer_probe.states.items()}
                pieces = self._pieces_of(samples, through, self._after.cap, states)
                features.append(uds.pool(self._examined(pieces, samples, policy)))
                self._release(head)
            return linear

        layer_probe = LayerProbe(self._bare, policy.needs.layers)
        with HeadProbe(self._reader.module, inside) as probe, layer_probe:
            logits = self._forward(models.inputs_for(self._bare, samples.inputs, samples.labels))
        known = self._after is not None and bool(features) and self._reader.holds(probe.result, self._after, logits)
        self._reader.forget()
        if not known:
            msg = (
                f"the logits of {type(self._bare).__name__} differ in form from those of its first pass: "
                "do not change the model during training, or train with DDP"
            )
            raise RuntimeError(msg)
        return features[0]

    def _prepared(self, head: uds.Head) -> uds.Head:
        """Return the head, with values derived in an earlier pass if it is frozen and unchanged."""
        if not self._reader.frozen or self._derived is None or self._derived[0] != _fingerprint(head):
            return head
        return self._derived[1].moved(head.weight, head.bias)

    def _release(self, head: uds.Head) -> None:
        """Store the values derived from a frozen head, without its weight."""
        if self._reader.frozen:
            empty = head.weight.new_zeros(()).expand(head.weight.shape)
            self._derived = _fingerprint(head), head.moved(empty, head.bias)


def _fingerprint(head: uds.Head) -> float:
    """Return a sum over part of the weight, to detect changes."""
    return float(head.weight[:: max(1, head.vocab // 64)].double().sum())
