"""How the time of `examine` and `choose` grows: with samples, rows, vocabulary and memory. Part of `scoring.py`.

Each line varies one size and keeps the others; its slopes are those of time against size on logarithmic axes: 1 is
linear growth, 0 is none.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor, log, log10
from pathlib import Path
from typing import Any, NamedTuple

import measure
import torch

import uds_core as uds

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "growth"


class Line(NamedTuple):
    """One size that is varied, and the sizes that stay."""

    letter: str
    varied: str
    sizes: Sequence[int]
    fixed: str
    run: Callable[[int], Callable[[], Any]]


def examining(*, batch: int, time: int, width: int, vocab: int, device: str) -> Callable[[], uds.Features]:
    """`examine` of the default policy through a prepared head, ready to be called."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, time, width, generator=generator) + 2 * torch.randn(width, generator=generator)
    hidden = hidden.to(device)
    head = uds.Head((torch.randn(vocab, width, generator=generator) / width**0.5).to(device))
    policy = uds.UDS(keep=0.5)

    def run() -> uds.Features:
        return policy.examine(uds.Candidates(head(hidden)))

    run()  # prepares the head
    return run


def choosing(*, batch: int, memory: int, device: str, dim: int = 1024) -> Callable[[], Any]:
    """`choose` of the default policy with a full memory, ready to be called."""
    generator = torch.Generator().manual_seed(0)
    policy = uds.UDS(keep=0.25, memory=memory, dim=dim)

    def features(number: int) -> uds.Features:
        return {
            "sketch": torch.randn(number, dim, generator=generator).to(device),
            "utility": torch.rand(number, generator=generator).to(device),
            "length": torch.ones(number, device=device),
        }

    state = policy.init(features(1))
    state = state._replace(memory=state.memory.push(torch.randn(memory, dim, generator=generator).to(device)))
    pool = features(batch)
    return lambda: policy.choose(state, pool)


def lines(width: int, device: str) -> list[Line]:
    """The four lines of the figure; `width` is that of the hidden states."""
    rows = [width // 16, width // 8, width // 4, width // 2, width, 2 * width, 4 * width, 8 * width]
    return [
        Line(
            "B", "examine: samples", [4, 8, 16, 32, 64], f"N = 128, h = {width}, V = 32,000",
            lambda n: examining(batch=n, time=128, width=width, vocab=32_000, device=device),
        ),
        Line(
            "N", "examine: rows of a sample", rows, f"B = 2, h = {width}, V = 32,000",
            lambda n: examining(batch=2, time=n, width=width, vocab=32_000, device=device),
        ),
        Line(
            "V", "examine: vocabulary, head prepared", [16_000, 32_000, 64_000, 128_000],
            f"B = 8, N = 128, h = {width}",
            lambda n: examining(batch=8, time=128, width=width, vocab=n, device=device),
        ),
        Line(
            "M", "choose: memory", [1_024, 4_096, 16_384, 65_536], "B = 64, d = 1,024",
            lambda n: choosing(batch=64, memory=n, device=device),
        ),
    ]  # fmt: skip


def grown(width: int, *, repeat: int, device: str) -> dict[str, dict[str, Any]]:
    """Seconds at each size of each line, and the slopes between neighbours and over all."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines(width, device):
        seconds = [measure.seconds(line.run(size), repeat=repeat) for size in line.sizes]
        points = list(zip(map(log, line.sizes), map(log, seconds), strict=True))
        found[line.letter] = {
            "varied": line.varied,
            "fixed": line.fixed,
            "sizes": list(line.sizes),
            "seconds": seconds,
            "slopes": [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairwise(points)],
            "slope": (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]),
        }
    return found


def share(*, repeat: int, device: str) -> dict[str, float]:
    """Seconds of `choose` and of `examine` for the same 64 candidates, and their ratio."""
    many = examining(batch=64, time=128, width=896, vocab=151_936, device=device)
    examine = measure.seconds(many, repeat=repeat)
    choose = measure.seconds(choosing(batch=64, memory=1024, device=device), repeat=5 * repeat)
    return {"choose_seconds": choose, "examine_seconds": examine, "choose_over_examine": choose / examine}


def report(found: dict[str, dict[str, Any]], shares: dict[str, float]) -> None:
    """Tables for people."""
    for letter, line in found.items():
        print(f"\n{line['varied']} ({line['fixed']}); slope {line['slope']:.2f}")
        print(f"{letter:>10}{'ms':>12}{'slope':>8}")
        for size, seconds, slope in zip(line["sizes"], line["seconds"], ["", *line["slopes"]], strict=True):
            print(f"{size:10,}{1e3 * seconds:12.2f}" + (f"{slope:8.2f}" if slope != "" else ""))
    print(
        f"\nchoose (B = 64, M = 1,024, d = 1,024) takes {1e3 * shares['choose_seconds']:.2f} ms, "
        f"{shares['choose_over_examine']:.1%} of examine (N = 128, h = 896: {1e3 * shares['examine_seconds']:.0f} ms)"
    )


def plot(found: dict[str, dict[str, Any]], width: int) -> None:
    """One small plot for each line."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(found), figsize=(11, 3.1))
    for axis, (letter, line) in zip(axes, found.items(), strict=True):
        sizes, milliseconds = line["sizes"], [1e3 * s for s in line["seconds"]]
        axis.plot(sizes, milliseconds, marker="o", ms=4, color="#0072b2")
        linear = [milliseconds[-1] * size / sizes[-1] for size in sizes]
        if letter != "V":
            axis.plot(sizes, linear, ls=":", color="#888888", lw=1, label="linear")
            axis.legend(frameon=False, fontsize=8)
        if letter == "N":
            axis.axvline(width, color="#d55e00", lw=1)
            axis.text(width, min(milliseconds), " N = h", color="#d55e00", fontsize=8)
        axis.set(xscale="log", yscale="log", xlabel=f"{letter} ({line['fixed']})")
        axis.set_ylim(10 ** floor(log10(min(milliseconds) / 1.5)), 10 ** ceil(log10(max(milliseconds) * 1.5)))
        axis.set_title(line["varied"], fontsize=9)
        axis.grid(alpha=0.25)
        axis.xaxis.label.set_size(7.5)
        shown = sizes[:: max(1, len(sizes) // 4)]
        axis.set_xticks(shown, [f"{round(size / 1000)}k" if size >= 1000 else str(size) for size in shown], fontsize=8)
        axis.minorticks_off()
    axes[0].set_ylabel("milliseconds, one CPU thread")
    figure.tight_layout()
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)
