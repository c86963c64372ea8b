"""`BatchSelector`: selection in any PyTorch loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch

import uds_core as uds

from . import batches, checkpoints
from .audit import Audit
from .batches.loss import weighted_loss
from .ranks import Ended, GatheredPool, RankError, Ranks
from .schedule import Schedule
from .scoring.batch_scorer import BatchScorer
from .scoring.head_probe import outside_autocast
from .scoring.scorer import Scorer
from .selection import importance, metrics
from .selection.assignment import Assignment
from .selection.checks import check_id_field, check_policy, check_weights_applied, warn_of_lost, warn_of_unlabelled
from .selection.history import History

__all__ = ["BatchSelector", "weighted_loss"]


class BatchSelector:
    """Hand it a batch of candidates; train on the batch that it returns.

    A batch is a mapping of tensors, with `input_ids` and `labels` (batch, time), as transformers' collators make it.

    The batch size of the loader counts *candidates*: with ``keep=0.25`` and a loader that yields 32 samples, 8 are
    trained on.

    Parameters
    ----------
    model
        The model that is trained, as the loop calls it: a language model whose forward takes the batch's entries by
        name, and whose `get_output_embeddings()` returns its LM head. (Policies that score no logits need neither.)
    policy
        Any `uds_core` policy, or its text, as in ``"uds:keep=0.25"``.
    schedule
        A `Schedule`: warm-up, interval, and a share that changes. Default: every batch is chosen from.
    scorer
        What scores: `Scorer`; for uds.GREATS, ``functools.partial(ValidationScorer, validation=batch)``
        or `LayerGradientScorer`.
    score_batch_size
        Samples in one scoring pass; None: all at once. Halved, with a warning, where memory runs out.
    softcap
        ``"exact"`` or ``"ignore"``, for models that cap their logits; see `Scorer`.
    indexer
        ``indexer(batch, indices) -> batch``, for batches that cannot be taken apart without you, as with images.
    id_field
        Entry of the batches with each sample's identity in the data set; it is taken out before the model sees them.
        Whole numbers are handed to the policy, as are the entries that it asks for (`Needs.columns`).
    audit
        An `Audit` that records every candidate's score and fate; with several processes each its own, of its own.
    ranks
        With several processes, which must then all call the selector: ``"rank"``, each keeps the best of its own
        candidates; ``"global"``, the best of all are kept, and trained in equal numbers. Or a `Ranks`.

    Attributes
    ----------
    last
        The last `uds_core.Selection`, of the candidates of all processes, or None where the schedule let all pass.
    last_indices
        Which of this process's candidates were chosen in the last call, ascending, wherever they are trained.
    last_ids
        Their identities, where there is an `id_field`.
    tokens
        Number of tokens with loss in what was kept last, on all processes: what a summed loss is to be divided by.
    empty
        Number of batches of the last call, of all processes, that are blank, for want of samples; see `Ranks`.
    metrics
        Of the last call: means of the score's parts, numbers of the policy, `kept_tokens_fraction`, `scoring_seconds`;
        with several processes `gathered_bytes` and `gathering_seconds`, waiting for the slowest included.

    Notes
    -----
    A policy that draws with importance weights (``uds.UDS(keep=0.25, temperature=0.1)``) gives each batch an entry
    `loss_weights`, in the shape of its labels: each token's importance weight, times `kept_tokens_fraction`. With it
    `weighted_loss`, divided by the number of chosen tokens, is an unbiased estimate of the mean over the tokens of all
    candidates. Take it out with ``batch.pop("loss_weights")``; the next call raises when it was left there.

    Data parallelism takes the mean of the processes' gradients. For that of all tokens, multiply the divided sum by
    the number of processes: ``model(**batch, num_items_in_batch=select.tokens).loss * select.ranks.size``.

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
        indexer: batches.Indexer | None = None,
        id_field: str | None = None,
        audit: Audit | None = None,
        ranks: Literal["rank", "global"] | Ranks = "rank",
    ) -> None:
        self.policy: uds.Policy = check_policy(policy)
        check_id_field(self.policy, id_field)
        self.schedule = Schedule() if schedule is None else schedule
        self.schedule.check(self.policy)
        self.id_field, self.audit = id_field, audit
        self.ranks = ranks if isinstance(ranks, Ranks) else Ranks(placement=ranks)
        self._scoring_options: dict[str, Any] = {
            "scorer": scorer,
            "softcap": softcap,
            "score_batch_size": score_batch_size,
            "indexer": indexer,
            "id_field": id_field,
        }
        self.reset(model)

    def reset(self, model: torch.nn.Module) -> None:
        """Forget everything, as if constructed anew for `model`."""
        self.attach(model)
        self.history = History()
        self.last: uds.Selection | None = None
        self.last_indices: list[int] = []
        self.last_ids: list[Any] = []
        self.tokens = self.empty = 0
        self.metrics: dict[str, float] = {}
        self._returned: Any = None

    def attach(self, model: torch.nn.Module) -> None:
        """Score with `model` from now on: the same one, in another wrapper."""
        self.model = model
        self._batch_scorer = BatchScorer(model, self.policy, self.ranks, **self._scoring_options)

    def __call__(self, batch: Mapping[str, Any], /, *, step: int | None = None) -> Any:
        """The chosen samples of `batch`, in their order there, as the same type of mapping.

        `step`: number of the optimizer step, for the schedule; default: how often the selector was called before.

        Raises
        ------
        TypeError, ValueError
            Where the batch is no mapping, or its samples cannot be told apart; see `batches.view`.
        RankError
            Where another process failed, or does something else.
        """
        check_weights_applied(self._returned)
        kept, _ = self.select_step([batch], step=step)
        if not kept:
            msg = "another process has no batch left, and this one still has: use `iterate(loader)`, which ends all"
            raise RankError(msg)
        self._returned = kept[0]
        return kept[0]

    def iterate(self, loader: Iterable[Mapping[str, Any]], /) -> Iterator[Any]:
        """The chosen samples of each batch of a loader; all processes end with the first that has no batch left."""
        source = iter(loader)
        check_weights_applied(self._returned)
        while kept := self.select_step(islice(source, 1))[0]:
            self._returned = kept[0]
            yield kept[0]
            check_weights_applied(self._returned)

    def select_step(
        self,
        candidates: Iterable[Mapping[str, Any]],
        /,
        *,
        step: int | None = None,
        scope: Literal["step", "micro"] = "step",
        fill: bool = False,
        about: str = "",
    ) -> tuple[list[Any], int]:
        """Return the chosen samples of all micro-batches of one optimizer step.

        Parameters
        ----------
        candidates
            The batches of this process, drawn one by one. None at all: nothing is chosen on any process.
        step
            Number of the optimizer step, for the schedule; default: how often was chosen before.
        scope
            ``"step"``: all batches are one pool. ``"micro"``: each is chosen from, as by calling the selector for one
            after the other; of several processes, the first batch of each, then the second, and so on.
        fill
            Whether batches without any target are added where fewer were chosen.
        about
            What else must be the same on all processes, in words.

        Returns
        -------
        tuple of a list of batches and a number
            What this process trains, in as many batches on all: of one pool split evenly, as many as the most that a
            process has, or fewer where fewer were chosen. And the number of tokens with loss in what all processes
            train, which a summed loss of the whole step is to be divided by.

        Raises
        ------
        TypeError, ValueError, RankError
            As in calling it; and where batches cannot be joined.
        """
        began, bytes_before, seconds_before = time.perf_counter(), self.ranks.bytes, self.ranks.seconds
        try:
            looked, pool = self._look(candidates, step, about)
        except Ended as end:
            warn_of_lost(end)
            return [], 0
        number = int(pool.batches.max()) + 1
        pools = [pool] if scope == "step" else [pool.of(i) for i in range(number)]
        assignments, weights, told, most = [], [], [], number if scope == "step" else 1
        for one in pools:
            assignments.append(self._deal(looked, one, most=most, fill=fill))
            weights.append(importance.weights_of(self.policy, self.last, len(one.tokens)))
            told.append(metrics.of(self.last))
        self.metrics = metrics.means(told)
        received = self._exchange_samples(assignments)
        kept = [
            batch for assignment, came in zip(assignments, received, strict=True) for batch in assignment.batches(came)
        ]
        self._update_attributes(looked, pool, assignments)
        if any(one is not None for one in weights):
            options = {"indexer": self._batch_scorer.indexer, "shift": self._batch_scorer.shift}
            fraction = self.metrics["kept_tokens_fraction"]
            kept = importance.attach(kept, assignments, weights, fraction=fraction, **options)
        if self.ranks.size > 1:
            self.metrics["gathered_bytes"] = float(self.ranks.bytes - bytes_before)
            self.metrics["gathering_seconds"] = self.ranks.seconds - seconds_before
        self.metrics["scoring_seconds"] = time.perf_counter() - began
        return kept, self.tokens

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is remembered, as a flat dict of tensors: safetensors and `weights_only` loading take it.

        The same on all processes, whatever their number.
        """
        return self.history.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], /, *, about: Mapping[str, Any] | None = None) -> None:
        """Take up what `state_dict` gave, the same on all processes; checked against the policy at the next batch.

        `about`: the policy that was saved, as `checkpoints.describe` tells it, to name what differs.

        Raises
        ------
        ValueError
            Where the names are not those of a selector's state.
        """
        self.history.load_state_dict(state, about=about)

    def _look(
        self, candidates: Iterable[Mapping[str, Any]], step: int | None, about: str
    ) -> tuple[_StepCandidates, GatheredPool]:
        """What this process has, and what all have: the one collective."""
        with self.ranks.together():
            found = [self._batch_scorer.view(batch) for batch in candidates]
            if not found:
                self.ranks.end()
            views, ids = [samples for samples, _ in found], [one for _, some in found for one in some]
            warn_of_unlabelled(self.policy, views)
            step = self.history.choices if step is None else step
            policy = self.schedule.policy(self.policy, step)
            features = {} if policy is None else self._batch_scorer.features(policy, views)
        looked = _StepCandidates(views, ids, policy, step)
        options = checkpoints.describe(self.policy)
        pool = self.ranks.gather(
            features,
            tokens=torch.cat([samples.tokens for samples in views]),
            batches=torch.arange(len(views)).repeat_interleave(torch.tensor([len(samples) for samples in views])),
            about=f"{about}step {step}, entries {sorted(views[0].batch)}, ranks {self.ranks.placement!r}, {options}",
            history=self.history.checksum,
        )
        return looked, pool

    def _deal(self, looked: _StepCandidates, pool: GatheredPool, *, most: int, fill: bool) -> Assignment:
        """One choice, and who trains what of it."""
        if looked.policy is None:
            self.last, chosen = None, torch.arange(len(pool.tokens))
        else:
            self.last = self._choose(looked.policy, pool)
            chosen = self.last.indices.sort().values.cpu()
        assignment = Assignment(
            chosen,
            pool,
            looked.views,
            self.ranks,
            move=self.last is not None and self.ranks.moves,
            most=most,
            fill=fill,
            indexer=self._batch_scorer.indexer,
            shift=self._batch_scorer.shift,
        )
        self._record(looked, assignment)
        self.history.add(chosen)
        return assignment

    def _choose(self, policy: uds.Policy, pool: GatheredPool) -> uds.Selection:
        length = pool.features["length"]
        apart = self.ranks.size > 1 and self.ranks.placement == "rank"
        with outside_autocast(length):
            self.history.restore(self.policy, pool.features)
            groups = pool.owners.to(length.device) if apart else None
            selection, state = policy.choose(self.history.state, pool.features, groups=groups)
        self.history.state = state
        return selection

    def _exchange_samples(self, assignments: list[Assignment]) -> list[list[Any]]:
        """For each choice, the samples that come from other processes."""
        if not any(assignment.moves for assignment in assignments):
            return [[] for _ in assignments]
        outgoing = [[assignment.outgoing(rank) for assignment in assignments] for rank in range(self.ranks.size)]
        received = self.ranks.exchange(outgoing, device=assignments[0].device)
        return [[batches_of_rank[i] for batches_of_rank in received] for i in range(len(assignments))]

    def _update_attributes(self, looked: _StepCandidates, pool: GatheredPool, assignments: list[Assignment]) -> None:
        """Update the public attributes."""
        self.last_indices = [i for assignment in assignments for i in assignment.chosen_here]
        self.last_ids = [looked.ids[i] for i in self.last_indices] if looked.ids else []
        self.tokens = sum(assignment.tokens for assignment in assignments)
        self.empty = sum(assignment.empty for assignment in assignments)
        self.metrics["kept_tokens_fraction"] = self.tokens / max(int(pool.tokens.sum()), 1)

    def _record(self, looked: _StepCandidates, assignment: Assignment) -> None:
        if self.audit is not None and self.last is not None:
            columns = {**self.last.table(), "tokens": assignment.pool.tokens}
            parts = {name: column[assignment.places] for name, column in columns.items()}
            first = assignment.first
            ids = looked.ids[first : first + len(assignment.places)] or None
            chosen = [i - first for i in assignment.chosen_here]
            self.audit.record(self.history.choices, ids, parts, chosen, optimizer_step=looked.step)


class _StepCandidates(NamedTuple):
    """What a process has of a step."""

    views: list[batches.SampleView]
    ids: list[Any]
    policy: uds.Policy | None
    step: int
