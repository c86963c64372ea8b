"""Collective selection across the processes of torch.distributed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist

import uds_core as uds

from .rank_messages import ENDED, FAILED, HEAD_BYTES, Report, from_bytes, merged, packed, ready, to_bytes, unpacked

__all__ = ["Ended", "GatheredPool", "HeadRefreshed", "RankError", "Ranks"]

_ROOM_BYTES = 4096  # messages grow by multiples of it
_PREPARED_BYTES = 64  # of what is prepared of each candidate, at most


class RankError(RuntimeError):
    """Another process failed, or does something different; raised on all processes, so that none waits."""


class Ended(Exception):  # noqa: N818 - no error
    """A process has no batch left, so all processes stop; `lost` describes the candidates left on this one."""

    def __init__(self, rank: int, lost: str = "") -> None:
        super().__init__(rank, lost)
        self.rank, self.lost = rank, lost


class HeadRefreshed(Exception):  # noqa: N818 - no error
    """Some processes have prepared their head anew, up to `number` times, and others have not: all must, as often."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class GatheredPool(NamedTuple):
    """The candidates of all processes: rank by rank within a micro-batch, one micro-batch after the other."""

    features: uds.Features
    tokens: torch.Tensor  # (n,) int64 on the CPU: rows with loss
    owners: torch.Tensor  # (n,) int64 on the CPU: rank of the sample
    batches: torch.Tensor  # (n,) int64 on the CPU: micro-batch on that rank
    measured: torch.Tensor  # exact scores of samples trained before: what any process knows, else NaN

    def of(self, number: int, /) -> GatheredPool:
        """Return the part from one micro-batch of each rank."""
        here = (self.batches == number).nonzero().flatten()
        features = {name: column[here.to(column.device)] for name, column in self.features.items()}
        return GatheredPool(features, self.tokens[here], self.owners[here], self.batches[here], self.measured)


class Ranks:
    """Selection across the processes of `torch.distributed`; without a process group, in this process alone.

    Parameters
    ----------
    placement
        ``"rank"``: each process keeps the best of its own candidates; the policy's state is the same on all.
        ``"global"``: the best of all processes' candidates are kept.
    samples
        Under ``"global"``: ``"move"`` sends chosen samples to other processes, as few as possible, so that the
        numbers that they train differ by at most one. ``"stay"`` trains each sample on its own process.
    group
        The process group of data parallelism; None: all processes.

    Attributes
    ----------
    gathers, bytes, seconds
        Number of collectives so far, bytes received, and seconds, including waiting for other processes.

    Notes
    -----
    One all-gather for each selection, of messages of a fixed size: that of the largest so far. When it grows, a second
    all-gather follows. The head of a message has the status of its rank: candidates, no batch left, or failed; so all
    stop or fail together. A different policy, option or state on one rank is an error on all.

    A rank without a chosen sample (fewer chosen than ranks, or ``samples="stay"``) trains a blank one, without any
    target: correct for a loss that is summed and divided by the tokens of all ranks; for others see
    `BatchSelector.trained_by`. The Trainers let it change nothing, whatever the loss.
    """

    def __init__(
        self,
        *,
        placement: Literal["rank", "global"] = "rank",
        samples: Literal["move", "stay"] = "move",
        group: Any = None,
    ) -> None:
        for name, given, known in (("ranks", placement, ("rank", "global")), ("samples", samples, ("move", "stay"))):
            if given not in known:
                msg = f"`{name}` must be {known[0]!r} or {known[1]!r}, got {given!r}"
                raise ValueError(msg)
        if placement == "rank" and samples != "move":
            msg = "samples='stay' changes nothing with placement='rank', where all stay: give placement='global'"
            raise ValueError(msg)
        self.placement, self.samples, self.group = placement, samples, group
        self._room = 0
        self.gathers, self.bytes, self.seconds = 0, 0, 0.0

    @property
    def size(self) -> int:
        """Number of processes that choose together."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Rank of this process in the group."""
        return dist.get_rank(self.group) if self.size > 1 else 0

    @property
    def moves(self) -> bool:
        """Whether chosen samples go to other processes."""
        return self.size > 1 and self.placement == "global" and self.samples == "move"

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Raise an exception of this block on all processes; for the work before `gather`."""
        try:
            yield
        except (RankError, Ended):
            raise
        except Exception as error:
            self._fail(error)
            raise

    def end(self) -> None:
        """Raise `Ended` on all processes, because this one has no batch."""
        if self.size > 1:
            self._checked(Report(ENDED))
        raise Ended(self.rank)

    def most(self, number: int, /, *, about: str) -> int:
        """Return the largest `number` of all processes."""
        return (
            number if self.size == 1 else max(report.number for report in self._checked(ready(about, number=number))[0])
        )

    def gather(
        self,
        features: uds.Features,
        /,
        *,
        tokens: torch.Tensor,
        batches: torch.Tensor,
        about: str,
        history: int,
        scores: torch.Tensor | None = None,
        part: int = -1,
        head: int = 0,
    ) -> GatheredPool:
        """Return the candidates of all processes.

        Parameters
        ----------
        features, tokens, batches
            Those of this process's candidates (n,), as in `GatheredPool`; n is at least 1.
        about
            Text that must be the same on all processes.
        history
            Checksum of the selections so far, which must be the same on all processes.
        scores
            (m,) float32 on the CPU, equally many on all processes: exact scores of samples that were trained before,
            NaN for those of other processes.
        part
            Part of the data that this process draws, which must be another on each; -1: unknown.
        head
            How often this process was asked to prepare its head anew.

        Raises
        ------
        RankError
            When a process failed, or differs from the others.
        Ended
            When a process called `end`.
        HeadRefreshed
            When `head` differs between processes.
        """
        scores = torch.zeros(0) if scores is None else scores
        if self.size == 1:
            return GatheredPool(features, tokens, torch.zeros_like(tokens), batches, scores)
        columns = {**{f"feature {name}": features[name] for name in features}, "tokens": tokens, "batch": batches}
        device = self._device(next(iter(features.values()), tokens))
        body = torch.cat([packed(columns, device).flatten(), scores.view(torch.uint8).to(device)])
        about = f"{about}; features {[(n, str(c.dtype), tuple(c.shape[1:])) for n, c in sorted(columns.items())]}"
        about = f"{about}, {len(scores)} scores"
        report = ready(about, history=history, number=len(tokens), needs=body.numel(), part=part, refreshed=head)
        reports, received = self._checked(report, body)
        if len({one.refreshed for one in reports}) > 1:
            raise HeadRefreshed(max(one.refreshed for one in reports))
        if (most := max(report.needs for report in reports)) > self._room:
            self._room = -(-most // _ROOM_BYTES) * _ROOM_BYTES
            reports, received = self._checked(report, body)
        parts = [
            part[: w.needs].split([w.needs - 4 * len(scores), 4 * len(scores)])
            for w, part in zip(reports, received, strict=True)
        ]
        filled = [rows.reshape(w.number, -1) for w, (rows, _) in zip(reports, parts, strict=True)]
        gathered = unpacked(torch.cat(filled), columns)
        owners = torch.arange(len(reports)).repeat_interleave(torch.tensor([report.number for report in reports]))
        order = gathered["batch"].sort(stable=True).indices
        features = {name: gathered[f"feature {name}"][order.to(features[name].device)] for name in features}
        known = merged([part.clone().view(torch.float32).cpu() for _, part in parts])
        return GatheredPool(features, gathered["tokens"][order], owners[order], gathered["batch"][order], known)

    def divided(self, prepare: Callable[[slice], uds.Features], number: int, /) -> uds.Features:
        """Return features of all of a pool's `number` candidates, of which each process computes those of its part.

        Nothing, without a collective, where `prepare` returns nothing, which must be the same on all processes.

        Raises
        ------
        RankError
            When `prepare` failed on another process.
        """
        parts = [uds.pool_part(number, rank=rank, size=self.size) for rank in range(self.size)]
        room = _PREPARED_BYTES * max(part.stop - part.start for part in parts)
        try:
            columns = dict(prepare(parts[self.rank]))
            if self.size == 1 or not columns:
                return columns
            body = packed(columns, self._device(next(iter(columns.values())))).flatten()
        except Exception as error:
            self._fail(error, room=room)
            raise
        about = f"prepared {[(name, str(column.dtype)) for name, column in sorted(columns.items())]}"
        reports, received = self._checked(ready(about, number=number, needs=len(body)), body, room=room)
        if max(report.needs for report in reports) > room:
            msg = f"a policy may prepare {_PREPARED_BYTES} bytes of a candidate at most, got {sorted(columns)}"
            raise ValueError(msg)
        filled = torch.cat([message[: report.needs] for report, message in zip(reports, received, strict=True)])
        return unpacked(filled.reshape(number, -1), columns)

    def merge(self, scores: torch.Tensor, /) -> torch.Tensor:
        """Return the scores (m,) that any process knows, NaN for the others; a collective of its own."""
        if self.size == 1 or not len(scores):
            return scores
        where = self._device(torch.empty(0))
        sent = scores.to(where)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(received, sent, group=self.group)
        return merged([part.cpu() for part in received])

    def exchange(self, outgoing: Sequence[Any], /, *, device: torch.device) -> list[Any]:
        """Return what each rank sent to this one; `outgoing` has one value for each rank, of tensors and plain data."""
        sent = [to_bytes(value) for value in outgoing]
        began, where = time.perf_counter(), self._device(torch.empty(0, device=device))
        sizes = torch.tensor([len(one) for one in sent], device=where)
        theirs = torch.empty_like(sizes)
        dist.all_to_all_single(theirs, sizes, group=self.group)
        data = torch.cat(sent).to(where)
        received = data.new_empty(int(theirs.sum()))
        dist.all_to_all_single(received, data, theirs.tolist(), sizes.tolist(), group=self.group)
        self._count(began, 2, len(received))
        return [from_bytes(part, device) for part in received.cpu().split(theirs.tolist())]

    def first(self, value: Any, /) -> Any:
        """Return the `value` of rank 0, on all processes."""
        if self.size == 1:
            return value
        box = [value]
        source = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        dist.broadcast_object_list(box, src=source, group=self.group, device=self._device(torch.empty(0)))
        return box[0]

    def collect(self, value: Any, /) -> list[Any]:
        """Return the `value` of each rank, on all processes."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def _fail(self, error: Exception, *, room: int | None = None) -> None:
        """Let all other processes raise, as this one does."""
        if self.size > 1:
            with contextlib.suppress(RankError, Ended):
                self._checked(Report(FAILED, text=f"{type(error).__name__}: {error}"), room=room)

    def _checked(
        self, report: Report, body: torch.Tensor | None = None, *, room: int | None = None
    ) -> tuple[list[Report], torch.Tensor]:
        """Return the reports and bodies of all ranks; raise unless all do the same."""
        reports, received = self._meet(report, body, self._room if room is None else room)
        failed = [f"rank {rank}: {other.text}" for rank, other in enumerate(reports) if other.status == FAILED]
        if failed:
            msg = f"a process could not score its candidates, so all stop: {'; '.join(failed)}"
            raise RankError(msg)
        if ended := [rank for rank, other in enumerate(reports) if other.status == ENDED]:
            raise Ended(ended[0], "" if report.status == ENDED else f"a step with {report.number} candidates")
        for rank, other in enumerate(reports):
            if other.about != reports[0].about:
                msg = f"the processes differ: rank 0 has {reports[0].text}; rank {rank} has {other.text}"
                raise RankError(msg)
            if other.history != reports[0].history:
                msg = f"ranks 0 and {rank} have different selections so far: load the same state on every process"
                raise RankError(msg)
        _check_parts([other.part for other in reports])
        return reports, received

    def _meet(self, report: Report, body: torch.Tensor | None, room: int) -> tuple[list[Report], torch.Tensor]:
        """Return the messages of all ranks from one all-gather: the heads and the bodies, which have `room` bytes."""
        began = time.perf_counter()
        device = self._device(torch.empty(0) if body is None else body)
        sent = torch.zeros(HEAD_BYTES + room, dtype=torch.uint8, device=device)
        sent[:HEAD_BYTES] = report.head().to(device)
        if body is not None and len(body) <= room:
            sent[HEAD_BYTES : HEAD_BYTES + len(body)] = body
        received = sent.new_empty(self.size, len(sent))
        dist.all_gather(list(received.unbind()), sent, group=self.group)
        reports = [Report.read(head) for head in received[:, :HEAD_BYTES].cpu()]
        self._count(began, 1, received.numel())
        return reports, received[:, HEAD_BYTES:]

    def _count(self, began: float, gathers: int, number: int) -> None:
        self.seconds += time.perf_counter() - began
        self.gathers += gathers
        self.bytes += number

    def _device(self, like: torch.Tensor) -> torch.device:
        """Return the device of the tensors of the group's collectives."""
        backends = dict(part.split(":") for part in str(dist.get_backend_config(self.group)).split(","))
        if backends.get(like.device.type) not in (None, "gloo"):
            return like.device
        return torch.device("cpu") if "cpu" in backends else torch.device("cuda", torch.cuda.current_device())


def _check_parts(parts: Sequence[int]) -> None:
    known = [part for part in parts if part >= 0]
    if len(known) == len(parts) > len(set(known)):
        msg = (
            f"several processes draw the same part of the data, the ranks of their samplers are {list(parts)}: give "
            "each sampler the rank of its process, as in DistributedSampler(data, rank=dist.get_rank())"
        )
        raise RankError(msg)
