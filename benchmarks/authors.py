"""The authors' algorithm, restated from the paper's formulas: what the benchmarks compare with.

All rows of the padded batch are scored, on logits that exist: nuclear norm by singular values; then each side of the
sketch is multiplied by signs, Fourier transformed in full, its real part taken, and rows drawn with replacement; the
vocabulary first, the time side filled with zeros to `time`; the whole batch at once.
"""

from typing import NamedTuple

import torch

RANKS = (8, 128)  # time, vocabulary


class Side(NamedTuple):
    """One side's constants: random signs (n,), and indices (r,) drawn with replacement."""

    signs: torch.Tensor
    rows: torch.Tensor


class Authors:
    """Scores of batches of logits (batch, time, vocab), and the queue of sketches."""

    def __init__(self, *, time: int, vocab: int, seed: int = 0, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(seed)
        self.time = time
        self.left, self.right = (self._side(n, r, generator, device) for n, r in zip((time, vocab), RANKS, strict=True))

    @staticmethod
    def _side(n: int, rank: int, generator: torch.Generator, device: str) -> Side:
        signs = torch.randint(0, 2, (n,), generator=generator).float() * 2 - 1
        return Side(signs.to(device), torch.randint(0, n, (rank,), generator=generator).to(device))

    def examine(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Utility (batch,) and sketch (batch, 1024) of each sample."""
        logits = logits.float()
        utility = torch.linalg.svdvals(logits).sum(dim=1)
        filled = torch.nn.functional.pad(logits, (0, 0, 0, self.time - logits.shape[1]))
        columns = self._project(filled, self.right)
        return utility, self._project(columns.mT, self.left).flatten(1)

    @staticmethod
    def _project(x: torch.Tensor, side: Side) -> torch.Tensor:
        n, rank = len(side.signs), len(side.rows)
        return torch.fft.fft(x * side.signs, dim=-1).real[..., side.rows] * (n / rank) ** 0.5
