"""Assignment of chosen samples to processes and batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from .. import batches
from ..batches.entries import Indexer, same_kind, tokens
from ..ranks import GatheredPool, Ranks

__all__ = ["Assignment", "exchange_samples"]


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
        Batches that each process trains: at most `most`, fewer when all have fewer samples; with `fill` exactly `most`,
        including blank ones.
    indexer, shift
        As in `batches.view`.

    Attributes
    ----------
    shares
        For each rank, the places in the pool that it trains. When samples move, a rank trains its own up to an equal
        part, and the rest of the others go to ranks with fewer.
    number
        Batches that each process trains.
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
        indexer: Indexer | None,
        shift: bool,
    ) -> None:
        if move and indexer is not None:
            msg = (
                "batches that need an `indexer` cannot be joined with samples of other processes: leave them on their "
                "process with ranks=Ranks(placement='global', samples='stay')"
            )
            raise ValueError(msg)
        self.pool, self._rank, self._indexer, self._shift = pool, ranks.rank, indexer, shift
        self.shares = _shares(chosen, pool.owners, ranks.size, move=move)
        self.number = most if fill else min(most, max(1, *map(len, self.shares)))
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
    def empty(self) -> int:
        """Number of blank batches, of all processes."""
        return sum(max(0, self.number - len(share)) for share in self.shares)

    @property
    def moves(self) -> bool:
        """Whether any sample goes to another process."""
        return any(bool((self.pool.owners[share] != rank).any()) for rank, share in enumerate(self.shares))

    def outgoing(self, rank: int, /) -> Any:
        """Return the samples that this process sends to `rank`, as a batch; None without any."""
        sent = self._here(self.shares[rank])
        return None if rank == self._rank or not len(sent) else dict(self._samples.take(sent))

    def batches(self, received: Sequence[Any], /) -> list[Any]:
        """Return the batches that this process trains, split evenly.

        `received`: the results of `outgoing` for this rank on the other processes.
        """
        stays, others = self._here(self.shares[self._rank]), [batch for batch in received if batch is not None]
        if self._whole:
            return [samples.batch for samples in self._views]
        if others:
            samples = self._with(others, stays)
            stays = torch.arange(len(samples))
        elif len(stays):
            samples = self._samples
        else:
            return [self.blank() for _ in range(self.number)]
        return [samples.take(part) if len(part) else self.blank() for part in stays.tensor_split(self.number)]

    def weights(self, weights: torch.Tensor, /) -> list[torch.Tensor]:
        """Return the weights of the samples of each of `batches`, zero for a blank one; `weights` (pool,) of all."""
        share = weights[self.shares[self._rank]]
        if self._whole:
            return list(share.split([len(samples) for samples in self._views]))
        return [part if len(part) else part.new_zeros(1) for part in share.tensor_split(self.number)]

    def blank(self) -> Any:
        """Return a batch to train when there is no sample."""
        return batches.blank(self._like.batch, indexer=self._indexer, shift=self._shift)

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
        joined = batches.join([samples.batch for samples in self._views], shift=self._shift)
        return batches.view(joined, shift=self._shift)

    def _with(self, others: Sequence[Any], stays: torch.Tensor) -> batches.SampleView:
        """Return a view of the samples that stay and those of other processes."""
        own = [self._samples.take(stays)] if len(stays) else []
        incoming = [same_kind(self._like.batch, batch) for batch in others]
        return batches.view(batches.join([*own, *incoming], shift=self._shift), shift=self._shift)

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


def _shares(chosen: torch.Tensor, owners: torch.Tensor, size: int, *, move: bool) -> list[torch.Tensor]:
    own = [chosen[owners[chosen] == rank] for rank in range(size)]
    if not move:
        return own
    fair = [len(part) for part in chosen.tensor_split(size)]
    kept = [part[:most] for part, most in zip(own, fair, strict=True)]
    spare = torch.cat([part[most:] for part, most in zip(own, fair, strict=True)])
    missing = [most - len(part) for part, most in zip(kept, fair, strict=True)]
    return [torch.cat(parts) for parts in zip(kept, spare.split(missing), strict=True)]
