"""The pictures of the concept pages, computed by the library itself.

python docs/drawings/concepts.py    # draws docs/figures/concept_NAME.svg anew
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

import uds_core as uds

FIGURES = Path(__file__).parents[1] / "figures"
BLUE, ORANGE, GREY = "#1d4ed8", "#c2410c", "#94a3b8"
ALPHA = 0.2
STYLE: dict[Any, Any] = {
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "grid.color": "#e2e8f0",
    "svg.hashsalt": "uds",
}


def utility() -> Any:
    """Three logits matrices, their singular values, and both norms."""
    rng = np.random.default_rng(0)
    one = np.repeat(rng.normal(size=(1, 60)), 24, axis=0)
    varied = rng.normal(size=(24, 60))
    varied *= np.linalg.norm(one) / np.linalg.norm(varied)
    shown = {"says the same everywhere": one, "varied, of the same size": varied, "varied, half the size": varied / 2}
    figure, axes = plt.subplots(2, 3, figsize=(9.6, 4.6), height_ratios=[1, 1.1])
    for (title, logits), (above, below) in zip(shown.items(), axes.T, strict=True):
        nuclear, size = uds.nuclear_norm(logits[None])[0], uds.frobenius_norm(logits[None])[0]
        above.imshow(logits, cmap="RdBu", vmin=-3, vmax=3, aspect="auto")
        above.set(title=title, xticks=[], yticks=[])
        above.grid(visible=False)
        below.bar(np.arange(1, 25), np.linalg.svd(logits, compute_uv=False), color=BLUE)
        below.set(xlabel="singular value", ylim=(0, 40), xticks=[1, 12, 24])
        below.text(0.97, 0.92, f"size $\\|L\\|_F$ = {size:.0f}", transform=below.transAxes, ha="right", va="top")
        below.text(
            0.97,
            0.78,
            f"utility $\\|L\\|_*$ = {nuclear:.0f}",
            transform=below.transAxes,
            ha="right",
            va="top",
            color=BLUE,
        )
    axes[0, 0].set_ylabel("positions")
    return figure


def sketches() -> Any:
    """True against sketched distances, for three sizes of sketch."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(1, 1, 24))
    hidden = 1.5 * shared + rng.normal(size=(24, 40, 24)) * rng.uniform(0.3, 1.5, size=(24, 1, 1))
    logits = uds.Head(rng.normal(size=(3000, 24)))(hidden)
    dense = np.asarray(hidden @ logits.head.weight.T)
    i, j = np.triu_indices(24, 1)
    true = np.linalg.norm(dense[i] - dense[j], axis=(1, 2))
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), sharey=True)
    for axis, dim in zip(axes, (64, 256, 1024), strict=True):
        z = uds.ShiftedSketch(time=512, vocab=3000, dim=dim)(logits)
        got = np.linalg.norm(z[i] - z[j], axis=1)
        axis.plot(true, true, color=GREY, lw=1)
        axis.scatter(true, got, s=8, color=BLUE, alpha=0.6)
        axis.set(title=f"{dim} numbers: spread {np.std(got / true):.1%}", xlabel="distance of the matrices")
    axes[0].set_ylabel("distance of the sketches")
    return figure


def memory() -> Any:
    """Candidates, the memory, and the samples chosen with and without diversity; in two dimensions."""
    rng = np.random.default_rng(3)
    known = rng.normal(size=(60, 2)) * 0.55 + (-1.2, 0.2)
    points = np.concatenate([rng.normal(size=(9, 2)) * 0.6 + (-0.9, 0.2), rng.normal(size=(7, 2)) * 0.7 + (1.6, 0.3)])
    useful = np.concatenate([rng.uniform(0.55, 1.0, size=9), rng.uniform(0.35, 0.8, size=7)])
    far = uds.diversity(points, known)
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.5))
    for axis, (title, alpha) in zip(axes[:2], (("utility alone", 0.0), ("with diversity", ALPHA)), strict=True):
        best = np.argsort(-(useful + alpha * far))[:4]
        axis.scatter(*known.T, s=14, color="#cbd5e1", label="remembered")
        axis.scatter(*points.T, s=30 + 170 * useful**3, facecolor="none", edgecolor=GREY, label="candidate")
        axis.scatter(*points[best].T, s=30 + 170 * useful[best] ** 3, color=BLUE, label="chosen")
        axis.set(title=f"{title} ($\\alpha$ = {alpha:g})", xticks=[], yticks=[], xlim=(-3.2, 3.9), ylim=(-2.2, 2.6))
        axis.grid(visible=False)
    axes[0].legend(loc="lower right", frameon=False, fontsize=9, markerscale=0.7)
    axis = axes[2]
    axis.scatter(far, useful, s=28, facecolor="none", edgecolor=GREY)
    for alpha, colour in ((0.0, ORANGE), (ALPHA, BLUE)):
        score = useful + alpha * far
        fourth = np.sort(score)[-4]
        x = np.linspace(0, 4.8, 2)
        axis.plot(x, fourth - alpha * x, color=colour, lw=1.6, label=f"$\\alpha$ = {alpha:g}")
    axis.set(xlabel="diversity D", ylabel="utility U", title="the best four lie above a line", ylim=(0.2, 1.1))
    axis.legend(frameon=False, loc="lower left")
    return figure


def cost() -> Any:
    """Time of a step with selection, relative to training on all candidates, by the fraction that is kept."""
    keep = np.linspace(0.01, 1, 200)
    figure, axis = plt.subplots(figsize=(6.4, 3.8))
    kinds = (("all weights train, or checkpointing (b = 2 f)", 2, BLUE), ("LoRA, no checkpointing (b = f)", 1, ORANGE))
    for label, b, colour in kinds:
        axis.plot(keep, (1 + keep * (1 + b)) / (1 + b), color=colour, label=label)
        share = (1 + (1 + b) / 8) / (1 + b)
        axis.plot([1 / 8], [share], "o", color=colour)
        axis.annotate(f"{share:.3f}", (1 / 8, share), (8, -12), textcoords="offset points", color=colour)
    axis.axhline(1, color=GREY, lw=1)
    axis.set(xlabel="fraction kept", ylabel="time, training on all = 1", xlim=(0, 1), ylim=(0, 1.6))
    axis.legend(frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    for draw in (utility, sketches, memory, cost):
        with mpl.rc_context(STYLE):
            made = draw()
            made.tight_layout()
            made.savefig(FIGURES / f"concept_{draw.__name__}.svg", metadata={"Date": None})
            plt.close(made)
