"""Assignment of chosen samples to processes and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

import uds_core as uds

from .. import batches
from ..batches.entries import Indexer, same_kind, tokens
from ..ranks import GatheredPool, Ranks

__all__ = ["Assignment", "StepCandidates", "exchange_samples"]


class StepCandidates(NamedTuple):
    """The candidates of one process in one step; `policy`: None where all are chosen."""

    views: list[batches.SampleView]
    ids: list[Any]
    policy: uds.Policy | None
    step: int

    def counts(self) -> dict[str, torch.Tensor]:
        """Return each candidate's number of tokens with loss, and the number of its micro-batch, for `Ranks.gather`."""
        sizes = torch.tensor([len(samples) for samples in self.views])
        with_loss = torch.cat([samples.tokens for samples in self.views])
        return {"tokens": with_loss, "batches": torch.arange(len(self.views)).repeat_interleave(sizes)}


class Assignment:
    """The chosen samples of a pool, and the part that this process trains.

    Parameters
    ----------
    chosen
        (k,) places in the pool, ascending, on the host.
    pool
        All candidates.
    views
        All batches of this process; only those in `pool` are used.
    ranks
        The processes.
    move
        Whether samples go to other processes, so that the numbers that they train differ by at most one.
    most, fill
        Batches of each process: at most `most`, and fewer when the processes have fewer samples; with `fill` exactly
        `most`, of which the first are empty.
    unscored
        (pool,) whether a candidate's score is NaN; None where none is.
    indexer, layout
        As in `batches.view`.

    Attributes
    ----------
    shares
        For each rank, the places in the pool that it trains. When samples move, a rank trains its own up to an equal
        part, and the rest of the others go to ranks with fewer.
    number
        Batches of each process.
    trained_by
        For each of these batches, whether each rank has samples for it. All but the first batches are trained by all
        ranks with enough samples.
    stand_in
        A sample for the batches that only other processes have samples for; None until `batches` needs one.
    tokens
        Number of rows with loss in all chosen samples.
    places
        (n,) the places in the pool that this process's candidates have.
    first
        Number of the first of these among all of this process's candidates.
    """

    def __init__(
        self,
        chosen: torch.Tensor,
        pool: GatheredPool,
        views: Sequence[batches.SampleView],
        ranks: Ranks,
        *,
        move: bool,
        most: int,
        fill: bool,
        unscored: torch.Tensor | None,
        indexer: Indexer | None,
        layout: batches.Layout,
    ) -> None:
        if move and indexer is not None:
            msg = (
                "batches that need an `indexer` cannot be joined with samples of other processes: leave them on their "
                "process with ranks=Ranks(placement='global', samples='stay')"
            )
            raise ValueError(msg)
        self.pool, self._rank, self._indexer, self._layout = pool, ranks.rank, indexer, layout
        self.shares = _shares(chosen, pool.owners, ranks.size, move=move)
        counts = [len(share) for share in self.shares]
        self.number = most if fill else _number(counts, most, pool)
        self.trained_by = [tuple(self.number - i <= count for count in counts) for i in range(self.number)]
        self.stand_in: Any = None
        self._chosen, self._fill = chosen, fill
        self._lent = self._stand_ins(unscored) if 0 in counts and any(counts) else {}
        self.tokens = int(pool.tokens[chosen].sum())
        self.places = (pool.owners == ranks.rank).nonzero().flatten()
        ours = sorted(set(pool.batches[self.places].tolist()))
        self._views, self._like = [views[i] for i in ours], views[0]
        self.first = sum(len(samples) for samples in views[: ours[0]]) if ours else 0
        self.chosen_here = (self._here(chosen) + self.first).tolist()

    @property
    def device(self) -> torch.device:
        """Device of the batches of this process."""
        return tokens(self._like.batch).device

    @property
    def moves(self) -> bool:
        """Whether any sample goes to another process."""
        return any(bool((self.pool.owners[self._wanted(rank)] != rank).any()) for rank in range(len(self.shares)))

    def outgoing(self, rank: int, /) -> Any:
        """Return the samples that this process sends to `rank`, as a batch; None without any."""
        sent = self._here(self._wanted(rank))
        return None if rank == self._rank or not len(sent) else dict(self._samples.take(sent))

    def batches(self, received: Sequence[Any], /, *, as_given: bool = True) -> list[Any]:
        """Return the batches of this process: first those without a sample, then its samples, split evenly.

        With `fill` the former hold no sample at all; else a blank one.

        `received`: the results of `outgoing` for this rank on the other processes. `as_given`: whether batches of which
        all is trained are those that came, also where their rows hold several samples each.
        """
        if self._whole:
            return [samples.given if as_given else samples.batch for samples in self._views]
        stays, others = self._here(self.shares[self._rank]), [batch for batch in received if batch is not None]
        number = min(self.number, len(self.shares[self._rank]))
        parts: list[Any] = []
        if number:
            samples, here = (self._with(others, stays), None) if others else (self._samples, stays)
            here = torch.arange(len(samples)) if here is None else here
            parts = [samples.take(part) for part in here.tensor_split(number)]
        without = self.number - number
        if without and any(any(ranks) for ranks in self.trained_by[:without]):
            self.stand_in = parts[0] if parts else self._borrowed(others)
        return [self._without_samples() for _ in range(without)] + parts

    def weights(self, weights: torch.Tensor, /) -> list[torch.Tensor]:
        """Return the weights of the samples of each of `batches`, zero for a blank one; `weights` (pool,) of all."""
        share = weights[self.shares[self._rank]]
        if self._whole:
            return list(share.split([len(samples) for samples in self._views]))
        number = min(self.number, len(share))
        parts = list(share.tensor_split(number)) if number else []
        return [share.new_zeros(0 if self._fill else 1)] * (self.number - number) + parts

    def beside(self) -> list[Mapping[str, torch.Tensor]]:
        """Return the numbers beside each of `batches`; none where samples of other processes are among them."""
        if self._whole:
            return [samples.beside for samples in self._views]
        share = self.shares[self._rank]
        stays, number = self._here(share), min(self.number, len(share))
        if len(stays) < len(share) or not number:
            return [{} for _ in range(self.number)]
        joined = {name: torch.cat([samples.beside[name] for samples in self._views]) for name in self._views[0].beside}
        parts: list[Mapping[str, torch.Tensor]] = [
            {name: numbers[part.to(numbers.device)] for name, numbers in joined.items()}
            for part in stays.tensor_split(number)
        ]
        return [{} for _ in range(self.number - number)] + parts

    def _without_samples(self) -> Any:
        """Return a batch for the model when there is no sample to train; with `fill`, one that is not for the model."""
        if self._fill:
            return batches.empty(self._like.batch)
        return batches.blank(self.stand_in, indexer=self._indexer, layout=self._layout)

    def _stand_ins(self, unscored: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """Return, for each rank without a chosen sample, the place (1,) of another in the pool.

        One of its own whose score is not NaN, because then the model's output may be finite; else a chosen one.
        """
        sound = torch.ones_like(self.pool.owners, dtype=torch.bool) if unscored is None else ~unscored
        own = [((self.pool.owners == rank) & sound).nonzero().flatten()[:1] for rank in range(len(self.shares))]
        return {
            rank: own[rank] if len(own[rank]) or self._indexer is not None else self._chosen[:1]
            for rank, share in enumerate(self.shares)
            if not len(share)
        }

    def _borrowed(self, received: Sequence[Any]) -> Any:
        """Return the sample of `_stand_ins` for this process."""
        if received:
            return same_kind(self._like.batch, received[0])
        own = self._here(self._lent[self._rank])
        return self._samples.take(own) if len(own) else self._like.take([0])

    def _wanted(self, rank: int) -> torch.Tensor:
        """Return the places of the samples that a rank trains, or of its stand-in."""
        return self._lent.get(rank, self.shares[rank])

    @property
    def _whole(self) -> bool:
        """Whether this process trains all of its candidates, in their own batches, and nothing else."""
        share = self.shares[self._rank]
        return len(self._views) == self.number and torch.equal(share, self.places)

    @cached_property
    def _samples(self) -> batches.SampleView:
        """Candidates of this process, in one view."""
        if len(self._views) == 1:
            return self._views[0]
        if self._indexer is not None:
            msg = "batches that need an `indexer` cannot be joined: choose from each of them (scope='micro')"
            raise ValueError(msg)
        joined = batches.join([samples.batch for samples in self._views], layout=self._layout)
        return batches.view(joined, layout=self._layout)

    def _with(self, others: Sequence[Any], stays: torch.Tensor) -> batches.SampleView:
        """Return a view of the samples that stay and those of other processes."""
        own = [self._samples.take(stays)] if len(stays) else []
        incoming = [same_kind(self._like.batch, batch) for batch in others]
        return batches.view(batches.join([*own, *incoming], layout=self._layout), layout=self._layout)

    def _here(self, places: torch.Tensor) -> torch.Tensor:
        """Return the places of this process's candidates, as indices into its candidates."""
        return torch.searchsorted(self.places, places[self.pool.owners[places] == self._rank])


def exchange_samples(assignments: Sequence[Assignment], ranks: Ranks, /) -> list[list[Any]]:
    """Return, for each assignment, the samples received from other processes."""
    if not any(assignment.moves for assignment in assignments):
        return [[] for _ in assignments]
    outgoing = [[assignment.outgoing(rank) for assignment in assignments] for rank in range(ranks.size)]
    received = ranks.exchange(outgoing, device=assignments[0].device)
    return [[batches_of_rank[i] for batches_of_rank in received] for i in range(len(assignments))]


def _number(counts: Sequence[int], most: int, pool: GatheredPool) -> int:
    """Return the number of batches of each process, so that as few as possible have no sample.

    As many as the process with the fewest samples has, unless another's batches would then be larger than the largest
    batch of candidates.
    """
    least, largest = min(counts), max(counts)
    if not least or least == largest:
        return min(most, largest)
    _, sizes = torch.stack([pool.owners, pool.batches]).unique(dim=1, return_counts=True)
    return min(most, max(least, -(-largest // int(sizes.max()))))


def _shares(chosen: torch.Tensor, owners: torch.Tensor, size: int, *, move: bool) -> list[torch.Tensor]:
    own = [chosen[owners[chosen] == rank] for rank in range(size)]
    if not move:
        return own
    fair = [len(part) for part in chosen.tensor_split(size)]
    kept = [part[:most] for part, most in zip(own, fair, strict=True)]
    spare = torch.cat([part[most:] for part, most in zip(own, fair, strict=True)])
    missing = [most - len(part) for part, most in zip(kept, fair, strict=True)]
    return [torch.cat(parts) for parts in zip(kept, spare.split(missing), strict=True)]
