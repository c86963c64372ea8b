"""Processes that choose together: what each looked at is gathered once, and all come to the same choice."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist

import uds_core as uds

__all__ = ["Ended", "GatheredPool", "RankError", "Ranks"]

_HEAD = struct.Struct("<6q")
_HEAD_BYTES = 1024  # of a message, with its text
_ROOM_BYTES = 4096  # messages grow by multiples of it
_READY, _ENDED, _FAILED = range(3)


class RankError(RuntimeError):
    """Another process failed, or does not do what this one does; raised on all of them, so that none waits."""


class Ended(Exception):  # noqa: N818 - no error
    """A process has no batch left, so that all stop here; `lost` says what this one still had."""

    def __init__(self, rank: int, lost: str = "") -> None:
        super().__init__(rank, lost)
        self.rank, self.lost = rank, lost


class GatheredPool(NamedTuple):
    """The candidates of all processes: rank by rank within a micro-batch, one micro-batch after the other."""

    features: uds.Features
    tokens: torch.Tensor  # (n,) int64 on the host: rows that carry loss
    owners: torch.Tensor  # (n,) int64 on the host: which rank has the sample
    batches: torch.Tensor  # (n,) int64 on the host: in which of its micro-batches

    def of(self, number: int, /) -> GatheredPool:
        """The part that comes from one micro-batch of each rank."""
        here = (self.batches == number).nonzero().flatten()
        features = {name: column[here.to(column.device)] for name, column in self.features.items()}
        return GatheredPool(features, self.tokens[here], self.owners[here], self.batches[here])


class Ranks:
    """How the processes of `torch.distributed` share a choice. Without a process group, all is as in one process.

    Parameters
    ----------
    placement
        ``"rank"``: each process keeps the best of its own candidates; what is remembered is the same everywhere.
        ``"global"``: the best of all processes' candidates are kept.
    rows
        Under ``"global"``: ``"move"`` sends chosen samples to other processes, as few as possible, so that all train
        the same number, to one. ``"stay"`` trains each where it is.
    group
        The process group of data parallelism; None: all processes.

    Attributes
    ----------
    gathers, bytes, seconds
        Collectives so far, bytes received in them, and the time they took, waiting for others included.

    Notes
    -----
    One all-gather a choice, of messages of a fixed size: that of the largest so far, which all agree on by a second one
    where it grows. A message says first whether its rank has candidates, has none left, or failed; so all stop, or
    fail, together. What one rank would do alone (another policy, other options, another memory) is an error on all.

    A rank that is left without a sample (fewer chosen than ranks, or ``rows="stay"``) trains a blank one, without any
    target: right for a loss that is summed and divided by the tokens of all, NaN for a mean of its own.
    """

    def __init__(
        self,
        *,
        placement: Literal["rank", "global"] = "rank",
        rows: Literal["move", "stay"] = "move",
        group: Any = None,
    ) -> None:
        for name, given, known in (("ranks", placement, ("rank", "global")), ("rows", rows, ("move", "stay"))):
            if given not in known:
                msg = f"`{name}` must be {known[0]!r} or {known[1]!r}, got {given!r}"
                raise ValueError(msg)
        if placement == "rank" and rows != "move":
            msg = "rows='stay' changes nothing with placement='rank', where rows always stay: give placement='global'"
            raise ValueError(msg)
        self.placement, self.rows, self.group = placement, rows, group
        self._room = 0
        self.gathers, self.bytes, self.seconds = 0, 0, 0.0

    @property
    def size(self) -> int:
        """Number of processes that choose together."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """Number of this process among them."""
        return dist.get_rank(self.group) if self.size > 1 else 0

    @property
    def moves(self) -> bool:
        """Whether chosen samples go to other processes."""
        return self.size > 1 and self.placement == "global" and self.rows == "move"

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What fails in here fails on all processes: for what a process does before it gathers."""
        try:
            yield
        except (RankError, Ended):
            raise
        except Exception as error:
            if self.size > 1:
                text = f"{type(error).__name__}: {error}"
                with contextlib.suppress(RankError, Ended):
                    self._checked(_Report(_FAILED, text=text))
            raise

    def end(self) -> None:
        """Tell the others that this process has no batch; raises `Ended` on all."""
        if self.size > 1:
            self._checked(_Report(_ENDED))
        raise Ended(self.rank)

    def most(self, number: int, /, *, about: str) -> int:
        """The largest `number` of any process: how often each must do what all do together."""
        return number if self.size == 1 else max(word.number for word in self._checked(_word(about, number=number))[0])

    def gather(
        self,
        features: uds.Features,
        /,
        *,
        tokens: torch.Tensor,
        batches: torch.Tensor,
        about: str,
        history: int,
    ) -> GatheredPool:
        """The candidates of all processes, from those of each.

        Parameters
        ----------
        features, tokens, batches
            Of this process's candidates (n,), as `GatheredPool` holds them; none has no candidates.
        about
            What must be the same on all processes.
        history
            A number that is the same where the same was chosen so far.

        Raises
        ------
        RankError
            Where a process failed, or differs from the others.
        Ended
            Where a process called `end`.
        """
        if self.size == 1:
            return GatheredPool(features, tokens, torch.zeros_like(tokens), batches)
        columns = {**{f"feature {name}": features[name] for name in features}, "tokens": tokens, "batch": batches}
        device = self._device(next(iter(features.values()), tokens))
        rows = _packed(columns, device)
        about = f"{about}; features {[(n, str(c.dtype), tuple(c.shape[1:])) for n, c in sorted(columns.items())]}"
        word = _word(about, history=history, number=len(tokens), needs=rows.numel())
        words, received = self._checked(word, rows.flatten())
        if (most := max(word.needs for word in words)) > self._room:
            self._room = -(-most // _ROOM_BYTES) * _ROOM_BYTES
            words, received = self._checked(word, rows.flatten())
        filled = [body[: w.needs].reshape(w.number, -1) for w, body in zip(words, received, strict=True)]
        found = _unpacked(torch.cat(filled), columns)
        owners = torch.arange(len(words)).repeat_interleave(torch.tensor([word.number for word in words]))
        order = found["batch"].sort(stable=True).indices
        features = {name: found[f"feature {name}"][order.to(features[name].device)] for name in features}
        return GatheredPool(features, found["tokens"][order], owners[order], found["batch"][order])

    def exchange(self, outgoing: Sequence[Any], /, *, device: torch.device) -> list[Any]:
        """What each rank sent to this one, of what each sends to each: dicts and lists of tensors, numbers, words."""
        sent = [_to_bytes(value) for value in outgoing]
        began, where = time.perf_counter(), self._device(torch.empty(0, device=device))
        sizes = torch.tensor([len(one) for one in sent], device=where)
        theirs = torch.empty_like(sizes)
        dist.all_to_all_single(theirs, sizes, group=self.group)
        data = torch.cat(sent).to(where)
        received = data.new_empty(int(theirs.sum()))
        dist.all_to_all_single(received, data, theirs.tolist(), sizes.tolist(), group=self.group)
        self._count(began, 2, len(received))
        return [_from_bytes(part, device) for part in received.cpu().split(theirs.tolist())]

    def first(self, value: Any, /) -> Any:
        """`value` of rank 0, on all."""
        if self.size == 1:
            return value
        box = [value]
        source = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        dist.broadcast_object_list(box, src=source, group=self.group, device=self._device(torch.empty(0)))
        return box[0]

    def _checked(self, word: _Report, body: torch.Tensor | None = None) -> tuple[list[_Report], torch.Tensor]:
        """What all say, after making sure that they do the same."""
        words, received = self._meet(word, body)
        failed = [f"rank {rank}: {other.text}" for rank, other in enumerate(words) if other.status == _FAILED]
        if failed:
            msg = f"a process could not score its candidates, so all stop: {'; '.join(failed)}"
            raise RankError(msg)
        if ended := [rank for rank, other in enumerate(words) if other.status == _ENDED]:
            raise Ended(ended[0], "" if word.status == _ENDED else f"a step with {word.number} candidates")
        for rank, other in enumerate(words):
            if other.about != words[0].about:
                msg = f"the processes do not do the same: rank 0 has {words[0].text}; rank {rank} has {other.text}"
                raise RankError(msg)
            if other.history != words[0].history:
                msg = f"ranks 0 and {rank} do not remember the same choices: load the same state on every process"
                raise RankError(msg)
        return words, received

    def _meet(self, word: _Report, body: torch.Tensor | None) -> tuple[list[_Report], torch.Tensor]:
        """The collective: all messages, each a head and as many bytes as were agreed on."""
        began = time.perf_counter()
        device = self._device(torch.empty(0) if body is None else body)
        sent = torch.zeros(_HEAD_BYTES + self._room, dtype=torch.uint8, device=device)
        sent[:_HEAD_BYTES] = word.head().to(device)
        if body is not None and len(body) <= self._room:
            sent[_HEAD_BYTES : _HEAD_BYTES + len(body)] = body
        received = sent.new_empty(self.size, len(sent))
        dist.all_gather(list(received.unbind()), sent, group=self.group)
        words = [_Report.read(head) for head in received[:, :_HEAD_BYTES].cpu()]
        self._count(began, 1, received.numel())
        return words, received[:, _HEAD_BYTES:]

    def _count(self, began: float, gathers: int, number: int) -> None:
        self.seconds += time.perf_counter() - began
        self.gathers += gathers
        self.bytes += number

    def _device(self, like: torch.Tensor) -> torch.device:
        """Where the group's collectives take their tensors."""
        backends = dict(part.split(":") for part in str(dist.get_backend_config(self.group)).split(","))
        if backends.get(like.device.type) not in (None, "gloo"):
            return like.device
        return torch.device("cpu") if "cpu" in backends else torch.device("cuda", torch.cuda.current_device())


class _Report(NamedTuple):
    """What a rank says before its candidates."""

    status: int
    number: int = 0
    needs: int = 0  # bytes
    about: int = 0
    history: int = 0
    text: str = ""

    def head(self) -> torch.Tensor:
        text = self.text.encode()[: _HEAD_BYTES - _HEAD.size]
        numbers = (self.status, self.number, self.needs, self.about, self.history, len(text))
        return torch.frombuffer(bytearray((_HEAD.pack(*numbers) + text).ljust(_HEAD_BYTES, b"\0")), dtype=torch.uint8)

    @classmethod
    def read(cls, head: torch.Tensor) -> _Report:
        data = head.numpy().tobytes()
        *numbers, length = _HEAD.unpack_from(data)
        return cls(*numbers, text=data[_HEAD.size : _HEAD.size + length].decode(errors="replace"))


def _word(about: str, **numbers: int) -> _Report:
    return _Report(_READY, about=zlib.crc32(about.encode()), text=about, **numbers)


def _packed(columns: Mapping[str, torch.Tensor], device: torch.device) -> torch.Tensor:
    """Columns (n, ...) side by side, as bytes (n, width)."""
    parts = [columns[name].detach().to(device) for name in sorted(columns)]
    return torch.cat([part.reshape(len(part), -1).contiguous().view(torch.uint8) for part in parts], 1)


def _unpacked(rows: torch.Tensor, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Columns that were packed, where those of `like` are."""
    found, start = {}, 0
    for name in sorted(like):
        column = like[name]
        width = column[:1].numel() * column.element_size()
        part = rows[:, start : start + width].contiguous().view(column.dtype)
        found[name], start = part.reshape(-1, *column.shape[1:]).to(column.device), start + width
    return found


def _to_bytes(value: Any) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_bytes(data: torch.Tensor, device: torch.device) -> Any:
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location=device, weights_only=True)
