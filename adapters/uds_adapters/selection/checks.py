"""Checks and warnings of a selector."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import uds_core as uds

from .. import checkpoints
from ..batches import LOSS_WEIGHTS, SampleView
from ..ranks import Ended, RankError

__all__ = [
    "check_id_field",
    "check_not_ended",
    "check_policy",
    "check_weights_applied",
    "only_batch",
    "warn_of_first_step",
    "warn_of_lost",
    "warn_of_unlabelled",
]


def check_policy(policy: Any) -> uds.Policy:
    """Return `policy`, made from text if it is text; raise when the adapters cannot use it."""
    policy = uds.make_policy(policy) if isinstance(policy, str) else policy
    if isinstance(policy, type) or not isinstance(policy, uds.Policy):
        msg = f"`policy` must be a policy such as uds.UDS(keep=0.25) or 'uds:keep=0.25', got {policy!r}"
        raise TypeError(msg)
    options = checkpoints.options(policy)
    takes_budget = options.keys() >= {"keep", "count"}
    given = any(options.get(name) is not None for name in ("keep", "count", "tokens", "processed"))
    if policy.needs.budget and takes_budget and not given:
        msg = (
            f"`policy` would keep all candidates, so scoring them has no effect: give {type(policy).__name__} a `keep` "
            "such as 0.25, a `count` or `tokens`; keep=1.0 if all are wanted"
        )
        raise ValueError(msg)
    return policy


def check_id_field(policy: uds.Policy, id_field: str | None) -> None:
    """Raise when `policy` reads sample ids and no entry of the batches holds them."""
    if policy.needs.ids and not id_field:
        msg = (
            f"{type(policy).__name__} remembers samples by their ids: set `id_field` to the name of the batch entry "
            "that holds them, such as id_field='id'"
        )
        raise ValueError(msg)


def check_weights_applied(batch: Any) -> None:
    """Raise when a batch after training still has its importance weights."""
    if batch is not None and LOSS_WEIGHTS in batch:
        msg = (
            "the policy draws with importance weights, and the training step left `loss_weights` in its batch, so "
            "its loss ignores them: begin with weights = batch.pop('loss_weights'), and train on "
            "weighted_loss(model(**batch).logits, batch['labels'], weights), of uds_adapters.torch"
        )
        raise RuntimeError(msg)


def warn_of_unlabelled(policy: Any, views: Sequence[SampleView]) -> None:
    """Warn when rows with labels are to be scored and a batch has no labels."""
    if checkpoints.options(policy).get("rows") == "labels" and any(samples.labels is None for samples in views):
        msg = (
            "a batch has no `labels`, so that all its tokens are scored, including prompts: add `labels`, -100 "
            "where there is no loss, or set the policy's rows='tokens' to score all tokens without this warning"
        )
        warnings.warn(msg, stacklevel=3)


def warn_of_first_step(policy: Any, assignments: Sequence[Any], history: Any) -> None:
    """Warn when the first step of a run selects nothing, or has nothing to train.

    `policy`: as scheduled; None where the schedule selected all. `assignments`: of all choices of the step.
    """
    if history.choices != len(assignments):
        return
    tokens = [assignment.pool.tokens for assignment in assignments]
    chosen = sum(len(share) for assignment in assignments for share in assignment.shares)
    if not any(int(one.sum()) for one in tokens):
        msg = (
            "no candidate of this step has a label to predict, so that nothing is trained: check that `labels` are not "
            "all -100, that prompts leave room for an answer within `max_length`, and that the collator masks no more "
            "than the prompt"
        )
        warnings.warn(msg, stacklevel=4)
        return
    number, keep = sum(map(len, tokens)), None if policy is None else checkpoints.options(policy).get("keep")
    if chosen == number and keep is not None and keep < 1:
        sizes = " and ".join(str(size) for size in sorted({len(one) for one in tokens}))
        msg = (
            f"keep={keep:g} of {sizes} {'candidate' if sizes == '1' else 'candidates'} is all of them: they are scored "
            "for nothing. Give more candidates to each choice: a larger batch (`per_device_train_batch_size`), or "
            "scope='step', which chooses from all micro-batches of an optimizer step"
        )
        warnings.warn(msg, stacklevel=4)


def warn_of_lost(end: Ended) -> None:
    """Warn when samples of this process are not trained because another process has no batch left."""
    if end.lost:
        msg = (
            f"rank {end.rank} had no batch left, so {end.lost} of this process is not trained: give all processes "
            "the same number of batches (`drop_last=True` of the sampler, `even_batches=True` of accelerate)"
        )
        warnings.warn(msg, stacklevel=4)


def check_not_ended(ended: bool, /) -> None:
    """Raise an error where another process has no batch left.

    Raises
    ------
    RankError
        If `ended`.
    """
    if ended:
        msg = "another process has no batch left, but this one has: use `iterate(loader)`, which ends all of them"
        raise RankError(msg)


def only_batch(chosen: Sequence[Any]) -> Any:
    """Return the one batch; raise when no sample was chosen."""
    if not chosen:
        msg = (
            "no sample of this batch can be chosen, as the scores of all are NaN: look for inputs, or weights, that "
            "are not finite; `iterate(loader)` leaves such batches out"
        )
        raise ValueError(msg)
    return chosen[0]
