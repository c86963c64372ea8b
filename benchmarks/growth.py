"""How scoring and choosing grow: with samples, rows, width, vocabulary, memory and processes.

    python benchmarks/growth.py              # measures, prints tables and one JSON line
    python benchmarks/growth.py --write      # and keeps the line in results/growth.json
    python benchmarks/growth.py --plot       # docs/figures/growth from it (needs matplotlib), measures nothing

Each panel varies one size and keeps the others. The sizes of a line are measured in turn, best of all turns. Its slope
is that of the seconds against the size, fitted on logarithmic axes: 1 is linear growth, 0 is none. Processes: the work
of the one with the largest part of a choice, beside which the others work on theirs; without the collective, for which
see `scale.py`. Last, the choice from 10,000 candidates against examining them.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np
import torch

import uds_core as uds

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "growth"
BASE = {"batch": 8, "time": 128, "width": 256, "vocab": 32_000}
DIM, MEMORY, POOL = 1024, 1024, 10_000
COLOURS = {"examine": "#0072b2", "examine, head trains": "#d55e00", "loss": "#009e73", "choose": "#cc79a7"}


class Line(NamedTuple):
    """One call, at sizes that are varied."""

    call: str
    sizes: Sequence[int]
    prepare: Callable[[int], Callable[[], Any]]


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", action="append", help="panels: B, N, h, V, M, R; default: all")
    parser.add_argument("--shared", action="store_true", help="CPU seconds, on a machine that others use")
    parser.add_argument("--write", action="store_true", help="into results/")
    parser.add_argument("--plot", action="store_true", help="draw the committed results, measure nothing")
    return parser.parse_args()


def tensors(*, batch: int, time: int, width: int, vocab: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states with a common part, as real ones have, and a head's weight."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, time, width, generator=generator) + 2 * torch.randn(width, generator=generator)
    return hidden.to(device), (torch.randn(vocab, width, generator=generator) / width**0.5).to(device)


def examining(*, device: str, frozen: bool = True, **sizes: int) -> Callable[[], uds.Features]:
    """`examine` of the default policy, through a prepared head or one that trains, ready to be called."""
    hidden, weight = tensors(device=device, **sizes)
    policy, prepared = uds.UDS(keep=0.5), uds.Head(weight)

    def run() -> uds.Features:
        head = prepared if frozen else uds.Head(weight, frozen=False)
        return policy.examine(uds.Candidates(head(hidden)))

    if frozen:
        run()  # prepares the head
    return run


def losing(*, device: str, **sizes: int) -> Callable[[], torch.Tensor]:
    """The losses of a batch through a head, ready to be called."""
    hidden, weight = tensors(device=device, **sizes)
    labels = torch.randint(len(weight), hidden.shape[:2], generator=torch.Generator().manual_seed(1)).to(device)
    return lambda: uds.cross_entropy(uds.Head(weight)(hidden), labels)


def choosing(*, batch: int, memory: int = MEMORY, ranks: int = 1, device: str) -> Callable[[], Any]:
    """`choose` of the default policy with a full memory; with several ranks, the work of the first of them."""
    generator = torch.Generator().manual_seed(0)
    policy: Any = uds.UDS(keep=0.25, memory=memory, dim=DIM)

    def features(number: int) -> dict[str, torch.Tensor]:
        return {
            "sketch": torch.randn(number, DIM, generator=generator).to(device),
            "utility": torch.rand(number, generator=generator).to(device),
            "length": torch.ones(number, device=device),
        }

    state = policy.init(features(1))
    state = state._replace(memory=state.memory.push(torch.randn(memory, DIM, generator=generator).to(device)))
    pool = features(batch)
    if ranks == 1:
        return lambda: policy.choose(state, pool)
    others = policy.prepare(state, pool, slice(0, batch))  # what a collective brings from the other ranks
    part = uds.pool_part(batch, rank=ranks - 1, size=ranks)

    def run() -> Any:
        policy.prepare(state, pool, part)
        return policy.choose(state, {**pool, **others})

    return run


def panels(device: str) -> dict[str, tuple[str, list[Line]]]:
    """The panels of the figure, by the letter of the size that is varied: what is fixed, and the lines."""

    def walks(name: str, sizes: Sequence[int]) -> list[Line]:
        return [
            Line("examine", sizes, lambda n: examining(device=device, **{**BASE, name: n})),
            Line("examine, head trains", sizes, lambda n: examining(device=device, frozen=False, **{**BASE, name: n})),
            Line("loss", sizes, lambda n: losing(device=device, **{**BASE, name: n})),
        ]

    def fixed(*names: str) -> str:
        letters = {"batch": "B", "time": "N", "width": "h", "vocab": "V"}
        return ", ".join(f"{letters[name]} = {BASE[name]:,}" for name in names)

    doubled = [2, 4, 8, 16, 32]
    pools = Line("choose", [16, 64, 256, 1_024, 4_096], lambda n: choosing(batch=n, device=device))
    return {
        "B": (fixed("time", "width", "vocab"), [*walks("batch", doubled), pools]),
        "N": (fixed("batch", "width", "vocab"), walks("time", [16, 32, 64, 128, 256, 512])),
        "h": (fixed("batch", "time", "vocab"), walks("width", [64, 128, 256, 512, 1_024])),
        "V": (fixed("batch", "time", "width"), walks("vocab", [8_000, 16_000, 32_000, 64_000, 128_000])),
        "M": (
            "B = 64",
            [Line("choose", [256, 1_024, 4_096, 16_384], lambda n: choosing(batch=64, memory=n, device=device))],
        ),
        "R": (
            "4,096 candidates, M = 1,024",
            [Line("choose", [1, 2, 4, 8, 16, 32], lambda n: choosing(batch=4_096, ranks=n, device=device))],
        ),
    }


def grown(letters: Sequence[str] | None, *, repeat: int, shared: bool, device: str) -> dict[str, dict[str, Any]]:
    """Seconds at each size of each line of each panel, and the slopes."""
    found: dict[str, dict[str, Any]] = {}
    for letter, (fixed, lines) in panels(device).items():
        if letters and letter not in letters:
            continue
        found[letter] = {"fixed": fixed, "lines": {}}
        for line in lines:
            seconds = measure.in_turn({size: line.prepare(size) for size in line.sizes}, repeat=repeat, shared=shared)
            slope = np.polyfit(np.log(line.sizes), np.log([seconds[size] for size in line.sizes]), 1)[0]
            found[letter]["lines"][line.call] = {
                "sizes": list(line.sizes),
                "seconds": [seconds[size] for size in line.sizes],
                "slope": float(slope),
            }
    return found


def pooled(*, repeat: int, shared: bool, device: str) -> list[dict[str, float]]:
    """Seconds of a choice from 10,000 candidates and of examining them, by 64 of them, at two widths."""
    rows = []
    for width in (256, 896):
        runs = {
            "examine": examining(batch=64, time=128, width=width, vocab=32_000, device=device),
            "choose": choosing(batch=POOL, device=device),
        }
        seconds = measure.in_turn(runs, repeat=repeat, shared=shared)
        examine = seconds["examine"] * POOL / 64
        rows.append({"width": width, "examine": examine, "choose": seconds["choose"]})
        rows[-1]["choose_over_examine"] = seconds["choose"] / examine
    return rows


def report(found: dict[str, dict[str, Any]], pools: list[dict[str, float]]) -> None:
    """Tables for people."""
    for letter, panel in found.items():
        for call, line in panel["lines"].items():
            print(f"\n{call} with {letter} ({panel['fixed'] if call != 'choose' or letter != 'B' else 'M = 1,024'})")
            print("".join(f"{size:10,}" for size in line["sizes"]) + "   slope")
            print("".join(f"{1e3 * seconds:10.2f}" for seconds in line["seconds"]) + f"{line['slope']:8.2f}   ms")
    for row in pools:
        print(
            f"\nh = {row['width']}, N = 128: examining {POOL:,} candidates {row['examine']:.1f} s, choosing from them "
            f"{row['choose']:.2f} s, {row['choose_over_examine']:.1%} (M = {MEMORY:,}, d = {DIM:,})"
        )


def plot(found: dict[str, dict[str, Any]]) -> None:
    """One small plot for each size."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), squeeze=False)
    names = {"B": "samples", "N": "rows of a sample", "h": "width", "V": "vocabulary", "M": "memory", "R": "processes"}
    for axis, (letter, panel) in zip(axes.flat, found.items(), strict=False):
        every = [1e3 * seconds for line in panel["lines"].values() for seconds in line["seconds"]]
        for call, line in panel["lines"].items():
            milliseconds = [1e3 * seconds for seconds in line["seconds"]]
            label = f"{call}: {line['slope']:.2f}"
            axis.plot(line["sizes"], milliseconds, marker="o", ms=4, color=COLOURS[call], label=label)
        axis.set(xscale="log", yscale="log", xlabel=f"{letter} ({panel['fixed']})", title=names[letter])
        room = ceil(log10(max(every) * 3)) + (len(panel["lines"]) > 3)  # for the legend
        axis.set_ylim(10 ** floor(log10(min(every) / 1.2)), 10**room)
        sizes = sorted({size for line in panel["lines"].values() for size in line["sizes"]})
        shown = sizes if len(sizes) <= 6 else sizes[::2]
        axis.set_xticks(shown, [f"{size // 1000}k" if size >= 8000 else f"{size:,}" for size in shown], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8, loc="upper left", title="slope", title_fontsize=8, alignment="left")
    for axis in axes[:, 0]:
        axis.set_ylabel("milliseconds, one CPU thread")
    figure.tight_layout()
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)


def main() -> None:
    """Measure and print; or draw."""
    options = parse()
    if options.plot:
        plot(json.loads(measure.results("growth", "cpu").read_text(encoding="utf-8"))["growth"])
        return
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    found = grown(options.only, repeat=options.repeat, shared=options.shared, device=options.device)
    pools = pooled(repeat=options.repeat, shared=options.shared, device=options.device)
    report(found, pools)
    line = {
        "benchmark": "growth",
        "base": {**BASE, "dim": DIM, "memory": MEMORY},
        "repeat": options.repeat,
        "shared": options.shared,
    }
    line |= {"growth": found, "pools": pools, **measure.surroundings(options.device)}
    print("\n" + json.dumps(line))
    if options.write:
        measure.results("growth", options.device).write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
