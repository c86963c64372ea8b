"""What was chosen from a pool, dealt out: which process trains which samples, in which batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from .. import batches
from ..batches.entries import Indexer, same_kind, tokens
from ..ranks import GatheredPool, Ranks

__all__ = ["Assignment"]


class Assignment:
    """The chosen samples of a pool, and what this process has to do with them.

    Parameters
    ----------
    chosen
        (k,) places in the pool, ascending, on the host.
    pool
        All candidates.
    views
        The batches of this process; those that the pool is of are meant.
    ranks
        The processes.
    move
        Whether samples go to other processes, so that all train the same number, to one.
    most, fill
        Batches that each process trains: at most so many, or fewer where all have fewer samples; exactly so many, blank
        ones among them, with `fill`.
    indexer, shift
        As in `batches.view`.

    Attributes
    ----------
    shares
        Of each rank, the places in the pool that it trains: its own, as many as are its fair part where samples move,
        which the others then go to fill.
    number
        Batches that each process trains.
    tokens
        Rows with loss in all of the chosen.
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
                "batches that need an `indexer` cannot be joined with samples of other processes: train them where "
                "they are, with ranks=Ranks(placement='global', rows='stay')"
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
        """Where this process has its batches."""
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
        """The samples that this process sends to another, as a batch; None where there are none."""
        sent = self._here(self.shares[rank])
        return None if rank == self._rank or not len(sent) else dict(self._samples.take(sent))

    def batches(self, received: Sequence[Any], /) -> list[Any]:
        """What this process trains, split evenly.

        `received`: what `outgoing` gave to this one on the other processes.
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
        """A batch to train where there is no sample."""
        return batches.blank(self._like.batch, indexer=self._indexer, shift=self._shift)

    @property
    def _whole(self) -> bool:
        """Whether this process trains all of its candidates, in their own batches, and nothing else."""
        share = self.shares[self._rank]
        return len(self._views) == self.number and torch.equal(share, self.places)

    @cached_property
    def _samples(self) -> batches.SampleView:
        """The candidates of this process, in one view."""
        if len(self._views) == 1:
            return self._views[0]
        if self._indexer is not None:
            msg = "batches that need an `indexer` cannot be joined: choose from each of them (scope='micro')"
            raise ValueError(msg)
        joined = batches.join([samples.batch for samples in self._views], shift=self._shift)
        return batches.view(joined, shift=self._shift)

    def _with(self, others: Sequence[Any], stays: torch.Tensor) -> batches.SampleView:
        """Samples that stay, and those that came."""
        own = [self._samples.take(stays)] if len(stays) else []
        came = [same_kind(self._like.batch, batch) for batch in others]
        return batches.view(batches.join([*own, *came], shift=self._shift), shift=self._shift)

    def _here(self, places: torch.Tensor) -> torch.Tensor:
        """Of places in the pool, those of this process, as numbers of its candidates."""
        return torch.searchsorted(self.places, places[self.pool.owners[places] == self._rank])


def _shares(chosen: torch.Tensor, owners: torch.Tensor, size: int, *, move: bool) -> list[torch.Tensor]:
    own = [chosen[owners[chosen] == rank] for rank in range(size)]
    if not move:
        return own
    fair = [len(part) for part in chosen.tensor_split(size)]
    kept = [part[:most] for part, most in zip(own, fair, strict=True)]
    spare = torch.cat([part[most:] for part, most in zip(own, fair, strict=True)])
    missing = [most - len(part) for part, most in zip(kept, fair, strict=True)]
    return [torch.cat(parts) for parts in zip(kept, spare.split(missing), strict=True)]
