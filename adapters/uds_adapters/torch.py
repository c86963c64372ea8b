"""Batch selection in any PyTorch training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch

import uds_core as uds

from . import batches, checkpoints
from .audit import Audit
from .batches.loss import weighted_loss
from .loaders import describe
from .ranks import Ended, GatheredPool, Ranks
from .schedule import Schedule
from .scoring.batch_scorer import BatchScorer
from .scoring.head_probe import outside_autocast
from .scoring.scorer import HEAD_TOLERANCE, Scorer
from .selection import auditing, checks, choosing, importance, learning, metrics
from .selection.assignment import Assignment, StepCandidates, exchange_samples
from .selection.history import History

__all__ = ["BatchSelector", "weighted_loss"]


class BatchSelector:
    """Select from a batch of candidates the samples to train on.

    A batch is a mapping of tensors with `input_ids` and `labels` (batch, time), as transformers' collators return it.

    The batch size of the loader counts *candidates*: with ``keep=0.25`` and a loader that yields 32 samples, 8 are
    used for training.

    Parameters
    ----------
    model
        The model in training, as the loop calls it: a language model whose forward takes the batch's entries by
        name, and whose `get_output_embeddings()` returns its LM head. (Policies that do not score logits need neither.)
    policy
        Any `uds_core` policy, or its text, as in ``"uds:keep=0.25"``.
    schedule
        A `Schedule`: warm-up, interval, and a changing fraction. Default: select from every batch.
    scorer
        Computes the scores: `Scorer`; for uds.GREATS, ``functools.partial(ValidationScorer, validation=batch)``
        or `LayerGradientScorer`.
    score_batch_size
        Samples in one scoring pass; None: all at once. Halved, with a warning, when memory runs out.
    softcap
        ``"exact"`` or ``"ignore"``, for models that cap their logits; see `Scorer`.
    head_tolerance
        How far a head that trains may move before it is prepared again; 0.0: in each step. See `Scorer`.
    compile
        Whether scores are computed by graphs of `torch.compile`; see `Scorer`.
    indexer
        ``indexer(batch, indices) -> batch``, for batches whose entries need special indexing, such as images.
    shift, sequences
        As of `batches.Layout`: whether labels are shifted, by default as in the model's own loss, and the sequences of
        each sample, 2 for pairs, by default those that the trainer's loss reads, or 1.
    id_field
        Entry of the batches with each sample's identity in the data set; removed before the model is called. The
        policy receives it where it is an integer, and the entries that it asks for (`Needs.columns`).
    audit
        An `Audit` that records every candidate's scores and whether it was chosen; one per process.
    ranks
        With several processes, which all call the selector: the best of each process's own candidates (``"rank"``), or
        of all, divided evenly (``"global"``). Or a `Ranks`.

    Attributes
    ----------
    last
        The last `uds_core.Selection`, of the candidates of all processes; None when the schedule selected all.
    last_indices
        Indices of this process's candidates that the last call chose, ascending, wherever they are trained.
    last_ids
        Their identities, if `id_field` is given.
    tokens
        Number of tokens with loss in the last chosen samples, on all processes: the divisor of a summed loss.
    trained_by, empty
        For each batch of the last call, whether each process has samples for it; how often one has a blank one instead.
    stand_in
        One chosen sample, where `select_step` was asked to `fill` and only other processes have samples for a batch.
    metrics
        Of the last call: means of the score's parts, metrics of the policy, `kept_tokens_fraction`, `scoring_seconds`;
        with several processes `gathered_bytes` and `gathering_seconds`, which includes waiting for the slowest.

    Notes
    -----
    A policy that samples with importance weights (``uds.UDS(keep=0.25, temperature=0.1)``) adds `loss_weights` to each
    batch, in the shape of its labels: each token's importance weight, times `kept_tokens_fraction`. With it
    `weighted_loss`, divided by the number of chosen tokens, is an unbiased estimate of the mean over the tokens of all
    candidates. Remove it with ``batch.pop("loss_weights")``; the next call raises an error if it is still there.
    Data parallelism averages gradients. For the mean over all tokens, multiply the divided sum by the number of
    processes: ``model(**batch, num_items_in_batch=select.tokens).loss * select.ranks.size``.

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
        policy: uds.Policy | str,
        *,
        schedule: Schedule | None = None,
        scorer: Callable[..., Scorer] = Scorer,
        score_batch_size: int | None = None,
        softcap: Literal["exact", "ignore"] = "exact",
        head_tolerance: float = HEAD_TOLERANCE,
        compile: bool = False,  # noqa: A002 - as `torch.compile`
        indexer: batches.Indexer | None = None,
        shift: bool | None = None,
        sequences: int | None = None,
        id_field: str | None = None,
        audit: Audit | None = None,
        ranks: Literal["rank", "global"] | Ranks = "rank",
    ) -> None:
        self.policy: uds.Policy = checks.check_policy(policy)
        checks.check_id_field(self.policy, id_field)
        self.schedule = Schedule() if schedule is None else schedule
        self.schedule.check(self.policy)
        self.id_field, self.audit = id_field, audit
        self.ranks = ranks if isinstance(ranks, Ranks) else Ranks(placement=ranks)
        self._scoring_options: dict[str, Any] = {"scorer": scorer, "softcap": softcap, "indexer": indexer}
        self._scoring_options |= {"shift": shift, "sequences": sequences, "id_field": id_field}
        self._scoring_options |= {"score_batch_size": score_batch_size, "head_tolerance": head_tolerance}
        self._scoring_options |= {"compile": True} if compile else {}  # of `Scorer` alone
        self.reset(model)

    def reset(self, model: torch.nn.Module) -> None:
        """Clear all state, as if newly constructed for `model`."""
        self.attach(model)
        self.history = History()
        self.last: uds.Selection | None = None
        self.last_indices, self.last_ids = list[int](), list[Any]()
        self.tokens, self.empty, self.layout = 0, 0, batches.Layout()
        self.trained_by, self.stand_in, self._returned = list[tuple[bool, ...]](), None, None
        self._ended, self.metrics = False, dict[str, float]()

    def attach(self, model: torch.nn.Module) -> None:
        """Score with `model`, which must be the same model, possibly in another wrapper."""
        self.model = model
        self._batch_scorer = BatchScorer(model, self.policy, self.ranks, **self._scoring_options)

    def __call__(self, batch: Mapping[str, Any], /, *, step: int | None = None) -> Any:
        """Return the chosen samples of `batch`, in their original order, as the same type of mapping.

        `step`: number of the optimizer step, for the schedule; default: the number of earlier calls.

        Raises
        ------
        TypeError, ValueError
            If the batch is not a mapping, or its samples cannot be separated; see `batches.view`.
        RankError
            If another process failed, or runs a different step or options.
        """
        checks.check_weights_applied(self._returned)
        chosen, _ = self.select_step([batch], step=step)
        checks.check_not_ended(self._ended)
        self._returned = checks.only_batch(chosen)
        return self._returned

    def iterate(self, loader: Iterable[Mapping[str, Any]], /) -> Iterator[Any]:
        """Yield the chosen samples of each batch that has any; all processes stop when the first has no batch left."""
        source = iter(loader)
        checks.check_weights_applied(self._returned)
        while (chosen := self.select_step(islice(source, 1), loader=loader)[0]) or not self._ended:
            for self._returned in chosen:
                yield self._returned
                checks.check_weights_applied(self._returned)

    def select_step(
        self,
        candidates: Iterable[Mapping[str, Any]],
        /,
        *,
        step: int | None = None,
        scope: Literal["step", "micro"] = "step",
        fill: bool = False,
        about: str = "",
        loader: Any = None,
    ) -> tuple[list[Any], int]:
        """Return the chosen samples of all micro-batches of one optimizer step.

        Parameters
        ----------
        candidates
            The batches of this process, read one by one. If there are none, no process selects anything.
        step
            Number of the optimizer step, for the schedule; default: the number of earlier selections.
        scope
            ``"step"``: all batches form one pool. ``"micro"``: select from each separately, as separate calls would;
            with several processes, from the first batch of each, then the second, and so on.
        fill
            Whether to add empty batches (`batches.empty`, not for the model) up to the number of candidate batches.
        about, loader
            Text that must also be the same on all processes, and the loader of the batches; see `loaders.describe`.

        Returns
        -------
        tuple of a list of batches and a number
            The batches that this process trains on, equally many on every process: one pool is split evenly into as
            many as the largest number that a process has, or fewer when fewer samples were chosen, none without any.
            And the number of tokens with loss on all processes, the divisor of the summed loss of the whole step.

        Raises
        ------
        TypeError, ValueError, RankError
            As a call of the selector; and if batches cannot be joined.
        """
        costs, self._ended = metrics.Costs(self.ranks), False
        try:
            scored, pool = self._score(candidates, step, about, loader)
        except Ended as end:
            checks.warn_of_lost(end)
            self._ended = True
            return [], 0
        number = int(pool.batches.max()) + 1
        pools = [pool] if scope == "step" else [pool.of(i) for i in range(number)]
        assignments, selections, weights, parts, most = [], [], [], [], number if scope == "step" else 1
        for one in pools:
            assignments.append(self._assign(scored, one, most=most, fill=fill))
            selections.append(self.last)
            weights.append(importance.weights_of(self.policy, self.last, len(one.tokens)))
            parts.append(metrics.of(self.last))
        self.metrics = metrics.means(parts)
        received = exchange_samples(assignments, self.ranks)
        probe = self._batch_scorer.probe
        trained = [one.batches(came, as_given=not probe) for one, came in zip(assignments, received, strict=True)]
        chosen = [batch for some in trained for batch in some]
        self._update_attributes(scored, pool, assignments)
        if probe is not None and (pending := self.history.pending(self.policy)):
            probe.expect(*learning.expected(chosen, assignments, selections), pending)
        if any(one is not None for one in weights):
            options = {"indexer": self._batch_scorer.indexer, "layout": self._batch_scorer.layout}
            fraction = self.metrics["kept_tokens_fraction"]
            chosen = importance.attach(chosen, assignments, weights, fraction=fraction, **options)
        self.metrics |= costs.read()
        return chosen, self.tokens

    window = select_step  # its earlier name

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the state as a flat dict of tensors, which safetensors and `weights_only` loading support.

        It is the same on all processes, whatever their number, except for `audited`: the records of its own audit. Of a
        policy that learns from trained samples it is a collective: call it on all processes, after the training pass.
        """
        self._batch_scorer.refresh_head()
        scores = self._batch_scorer.collect(always=self.ranks.size > 1)
        if scores is not None and self.history.state is not None:
            learning.learn(self.policy, self.history, self.ranks.merge(scores))
        return self.history.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /, *, about: Mapping[str, Any] | None = None) -> None:
        """Restore a `state_dict`, the same on all processes; the next batch checks it against the policy.

        `about`: the saved policy, as `checkpoints.describe` returns it, so that errors can name what differs.
        Warns when the audit has lost records that were written before the state was saved.

        Raises
        ------
        ValueError
            If the names are not those of a selector's state.
        """
        self.history.load_state_dict(state, about=about)
        self._batch_scorer.refresh_head()
        auditing.warn_of_missing(self.audit, self.history)

    def _score(
        self, candidates: Iterable[Mapping[str, Any]], step: int | None, about: str, loader: Any
    ) -> tuple[StepCandidates, GatheredPool]:
        """Score the candidates of this process, and gather those of all processes in one collective."""
        with self.ranks.together():
            viewed = [self._batch_scorer.view(batch) for batch in candidates]
            if not viewed:
                self.ranks.end()
            views, ids = [samples for samples, _ in viewed], [one for _, some in viewed for one in some]
            checks.warn_of_unlabelled(self.policy, views)
            step = self.history.choices if step is None else step
            policy = self.schedule.policy(self.policy, step)
            restored = partial(self.history.restored, self.policy)
            options: Any = {"choice": self.history.steps, "state": restored}
            score = partial(self._batch_scorer.features, policy, views, **options)
            features = score()
            scores = None if policy is None else self._batch_scorer.collect(always=self.ranks.size > 1)
        scored = StepCandidates(views, ids, policy, step)
        options, data, entries = checkpoints.describe(self.policy), describe(loader), sorted(views[0].batch)
        pool = self._batch_scorer.gather(
            features,
            score,
            **scored.counts(),
            about=f"{about}{data.text}step {step}, entries {entries}, ranks {self.ranks.placement!r}, {options}",
            history=self.history.checksum,
            scores=scores,
            part=data.part,
        )
        if scores is not None:
            with outside_autocast(pool.features["length"]):
                learning.learn(self.policy, self.history, pool.measured, like=pool.features)
        return scored, pool

    def _assign(self, scored: StepCandidates, pool: GatheredPool, *, most: int, fill: bool) -> Assignment:
        """Select from one pool, and assign the chosen samples to processes."""
        if scored.policy is None:
            self.last, chosen = None, torch.arange(len(pool.tokens))
        else:
            self.last = self._choose(scored.policy, pool)
            chosen = torch.from_numpy(self.last.on_host().indices).sort().values
        assignment = Assignment(
            chosen,
            pool,
            scored.views,
            self.ranks,
            move=self.last is not None and self.ranks.moves,
            most=most,
            fill=fill,
            unscored=None if self.last is None else torch.from_numpy(self.last.unscored()),
            indexer=self._batch_scorer.indexer,
            layout=self._batch_scorer.layout,
        )
        if self.audit is not None and self.last is not None:
            auditing.record(self.audit, self.history, self.last, assignment, ids=scored.ids, step=scored.step)
        self.history.add(chosen)
        return assignment

    def _choose(self, policy: uds.Policy, pool: GatheredPool) -> uds.Selection:
        with outside_autocast(pool.features["length"]):
            state = self.history.restored(self.policy, pool.features)
            selection, self.history.state = choosing.choose(policy, state, pool, self.ranks)
        return selection

    def _update_attributes(self, scored: StepCandidates, pool: GatheredPool, assignments: list[Assignment]) -> None:
        """Update the public attributes."""
        self.last_indices = [i for assignment in assignments for i in assignment.chosen_here]
        self.layout = self._batch_scorer.layout
        self.last_ids = [scored.ids[i] for i in self.last_indices] if scored.ids else []
        self.tokens = sum(assignment.tokens for assignment in assignments)
        self.trained_by = [ranks for assignment in assignments for ranks in assignment.trained_by]
        self.empty = sum(ranks.count(False) for ranks in self.trained_by)
        self.stand_in = next((one.stand_in for one in assignments if one.stand_in is not None), None)
        self.metrics["kept_tokens_fraction"] = self.tokens / max(int(pool.tokens.sum()), 1)
        checks.warn_of_first_step(scored.policy, assignments, self.history)
