"""Messages between processes: a report with counts and checksums, and tensors as bytes."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

__all__ = [
    "ENDED",
    "FAILED",
    "HEAD_BYTES",
    "Report",
    "from_bytes",
    "merged",
    "packed",
    "ready",
    "to_bytes",
    "unpacked",
]

HEAD_BYTES = 1024  # of a message, with its text
READY, ENDED, FAILED = range(3)
_HEAD = struct.Struct("<8q")


class Report(NamedTuple):
    """Head of a message: status, counts and checksums of a rank."""

    status: int
    number: int = 0
    needs: int = 0  # bytes
    about: int = 0
    history: int = 0
    part: int = -1
    refreshed: int = 0
    text: str = ""

    def head(self) -> torch.Tensor:
        """Return the report as bytes of a fixed number; its text is cut to them."""
        text = self.text.encode()[: HEAD_BYTES - _HEAD.size]
        numbers = (self.status, self.number, self.needs, self.about, self.history, self.part, self.refreshed)
        data = _HEAD.pack(*numbers, len(text)) + text
        return torch.frombuffer(bytearray(data.ljust(HEAD_BYTES, b"\0")), dtype=torch.uint8)

    @classmethod
    def read(cls, head: torch.Tensor) -> Report:
        """Return the report that `head` gave."""
        data = head.numpy().tobytes()
        *numbers, length = _HEAD.unpack_from(data)
        return cls(*numbers, text=data[_HEAD.size : _HEAD.size + length].decode(errors="replace"))


def ready(about: str, **numbers: int) -> Report:
    """Return the report of a process that has candidates; `about` must be the same on all."""
    return Report(READY, about=zlib.crc32(about.encode()), text=about, **numbers)


def packed(columns: Mapping[str, torch.Tensor], device: torch.device) -> torch.Tensor:
    """Return the columns (n, ...) side by side, as bytes (n, width)."""
    parts = [columns[name].detach().to(device) for name in sorted(columns)]
    wide = [part[:, None] if part.ndim == 1 else part.flatten(1) for part in parts]
    return torch.cat([part.contiguous().view(torch.uint8) for part in wide], 1)


def unpacked(rows: torch.Tensor, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the packed columns, on the devices of those of `like`."""
    unpacked, start = {}, 0
    for name in sorted(like):
        column = like[name]
        width = math.prod(column.shape[1:]) * column.element_size()
        part = rows[:, start : start + width].contiguous().view(column.dtype)
        unpacked[name], start = part.reshape(-1, *column.shape[1:]).to(column.device), start + width
    return unpacked


def merged(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return at each place the first number that is not NaN."""
    merged = parts[0]
    for part in parts[1:]:
        merged = torch.where(merged.isnan(), part, merged)
    return merged


def to_bytes(value: Any) -> torch.Tensor:
    """Return tensors and plain data as bytes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def from_bytes(data: torch.Tensor, device: torch.device) -> Any:
    """Return what `to_bytes` took, on a device. Nothing is unpickled."""
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location=device, weights_only=True)
