"""Scoring with a model whose weights are shared out over processes (FSDP2, ZeRO-3)."""

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
from .scorer import Scorer, check_whole, examined

__all__ = ["ShardedScorer"]


class ShardedScorer(Scorer):
    """A `Scorer` that uses the head where it is whole: inside the forward pass, right before it runs.

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
    What a model does to its head's output is learnt in one pass of one sample, at the first call, and verified in every
    later one. Of a frozen head only what is derived of it is kept, never its weight: a process holds no more of the
    head than its shard and what the pass itself gathers. A head that cannot be read, or a pass that needs more memory
    than there is, is an error here: what one process would do about it alone, the others would wait for.
    """

    def __init__(self, model: torch.nn.Module, ranks: Ranks, **options: Any) -> None:
        super().__init__(model, **options)
        self._ranks = ranks
        self._after: After | None = None
        self._vocab = 0
        self._kept: tuple[float, uds.Head] | None = None

    def examine_all(self, views: Sequence[batches.SampleView], policy: uds.Policy) -> uds.Features:
        """The policy's features of the samples of several batches, in their order."""
        check_whole(policy, self.score_batch_size)
        pieces = [piece for samples in views for piece in samples.split(self.score_batch_size or len(samples))]
        number = self._ranks.most(len(pieces), about="sharded scoring")
        one = pieces[0].split(1)[0]
        with self._alone(), undisturbed(self.model):
            if self._after is None:
                self._learn(one)
            features = [self._pass(piece, policy) for piece in pieces]
            for _ in range(number - len(pieces)):
                self._pass(one, policy)
        return uds.pool(features)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """What fails in a pass cannot be told to the others, who wait in it: they end when this process does."""
        try:
            yield
        except Exception as error:
            msg = f"scoring failed on rank {self._ranks.rank} in the midst of a pass that all make together: {error}"
            raise RankError(msg) from error

    def _learn(self, samples: batches.SampleView) -> None:
        with HeadProbe(self._reader.module, self._reader.linear) as probe:
            logits = self._forward(models.inputs_for(self._bare, samples.inputs, samples.labels))
        self._after = None if probe.hidden is None else self._reader.after(probe.seen, logits)
        self._vocab = logits.shape[-1]
        self._reader.forget()
        if self._after is None:
            msg = (
                f"the logits of {type(self._bare).__name__} are not those of a linear head that could be read, and "
                "full logits are not made where weights are sharded: choose a policy that needs none, or train with DDP"
            )
            raise TypeError(msg)

    def _pass(self, samples: batches.SampleView, policy: uds.Policy) -> uds.Features:
        """Features of one forward pass, made before the head runs."""
        found: list[uds.Features] = []

        def inside(last: torch.Tensor, *args: Any, **kwargs: Any) -> Linear:
            linear = self._reader.linear(last, *args, **kwargs)
            hidden = probe.hidden
            if hidden is not None and linear.weight is not None and self._after is not None:
                head = self._prepared(self._reader.head(linear, self._after, self._vocab))
                through = head(samples.arrange(hidden))
                states = {number: samples.arrange(output) for number, output in caught.states.items()}
                pieces = self._pieces_of(samples, through, self._after.cap, states)
                found.append(uds.pool([examined(candidates, policy) for candidates in pieces]))
                self._release(head)
            return linear

        caught = LayerProbe(self._bare, policy.needs.layers)
        with HeadProbe(self._reader.module, inside) as probe, caught:
            logits = self._forward(models.inputs_for(self._bare, samples.inputs, samples.labels))
        known = self._after is not None and bool(found) and self._reader.holds(probe.seen, self._after, logits)
        self._reader.forget()
        if not known:
            msg = f"the logits of {type(self._bare).__name__} come about in another way than in its first pass"
            raise RuntimeError(msg)
        return found[0]

    def _prepared(self, head: uds.Head) -> uds.Head:
        """The head, with what was derived of it in an earlier pass, if it is frozen and the same."""
        if not head.frozen or self._kept is None or self._kept[0] != _mark(head):
            return head
        return self._kept[1].moved(head.weight, head.bias)

    def _release(self, head: uds.Head) -> None:
        """Keep what was derived of a frozen head, without its weight."""
        if head.frozen:
            nothing = head.weight.new_zeros(()).expand(head.weight.shape)
            self._kept = _mark(head), head.moved(nothing, head.bias)


def _mark(head: uds.Head) -> float:
    """By which other weights are known: the sum of some rows."""
    return float(head.weight[:: max(1, head.vocab // 64)].double().sum())
