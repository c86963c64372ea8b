"""How far sketched distances are off on real logits, against the size of the sketch.

    python benchmarks/sketches.py                 # measures, prints tables and one JSON line
    python benchmarks/sketches.py --write         # and keeps the line in benchmarks/results/sketches.json
    python benchmarks/sketches.py --plot          # draws docs/figures/sketches.svg and .png from it (needs matplotlib)

Logits: worked answers of GSM8K under small pretrained models, through the same scoring pass as in training. The models
and the data are not part of the project; `--models` and `--data` say where they are.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

import uds_core as uds

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "sketches.json"
FIGURE = ROOT / "docs" / "figures" / "sketches"
TIME = 512

KINDS: dict[str, Callable[..., Any]] = {
    "shifted": lambda dim, vocab, seed: uds.ShiftedSketch(time=TIME, vocab=vocab, dim=dim, seed=seed),
    "paired": lambda dim, vocab, seed: uds.PairedSketch(time=TIME, vocab=vocab, dim=dim, seed=seed),
    "grid, balanced": lambda dim, vocab, seed: _grid(vocab, seed, uds.fourier_rank(dim, time=TIME, vocab=vocab)),
    "grid, 16 x d/16": lambda dim, vocab, seed: _grid(vocab, seed, (min(16, dim), max(1, dim // 16))),
    "grid, 8 x d/8 (paper)": lambda dim, vocab, seed: _grid(vocab, seed, (min(8, dim), max(1, dim // 8))),
}


def _grid(vocab: int, seed: int, rank: tuple[int, int]) -> uds.FourierSketch:
    return uds.FourierSketch(time=TIME, vocab=vocab, rank=rank, seed=seed)


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "gsm8k" / "train.jsonl")
    parser.add_argument("--names", nargs="+", default=["stories260k", "babyllama361", "textbook4m"])
    parser.add_argument("--centres", nargs="+", default=["none", "row"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--cost", nargs=4, type=int, default=[2, 128, 896, 151_936], metavar=("B", "N", "H", "V"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


def real_logits(options: argparse.Namespace, name: str) -> tuple[Any, torch.Tensor]:
    """Logits of the items, as the scoring pass hands them to a policy, and the mask of their tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from uds_adapters.scoring.scorer import Scorer

    lines = options.data.read_text(encoding="utf-8").splitlines()[: options.items]
    texts = ["{question}\n{answer}".format(**json.loads(line)) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(options.models / name)
    tokens = [tokenizer(text, truncation=True, max_length=options.tokens).input_ids for text in texts]
    longest = max(map(len, tokens))
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in tokens])
    mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in tokens])
    model = AutoModelForCausalLM.from_pretrained(options.models / name).requires_grad_(False)
    return Scorer(model)({"input_ids": ids, "attention_mask": mask, "labels": ids}).logits, mask.bool()


def distortions(options: argparse.Namespace, name: str) -> Iterator[dict[str, Any]]:
    """One row for each centre, kind and size: spread of the distances, and agreement of the mean distances."""
    raw, mask = real_logits(options, name)
    for centre in options.centres:
        logits = raw.centred(centre).scored(mask)
        compact = logits.compact()
        # coordinates in the span of the samples: the same distances, in as many numbers as there are samples
        exact = torch.linalg.qr(compact.flatten(1).double().mT, mode="r").R.mT
        spectrum = torch.linalg.svdvals(compact[:8])
        share = (spectrum[:, 0] ** 2 / (spectrum**2).sum(dim=1)).mean()
        about = {"model": name, "vocab": logits.shape[2], "centre": centre, "first_share": float(share)}
        for kind, make in KINDS.items():
            for dim in options.sizes:
                found = [
                    uds.distortion(make(dim, logits.shape[2], seed)(logits), exact) for seed in range(options.seeds)
                ]
                yield {**about, "kind": kind, "dim": dim, **_over_seeds(found)}


def _over_seeds(found: list[uds.Distortion]) -> dict[str, float]:
    ratio, spread, lowest, highest, agreement = np.array([[float(part) for part in one] for one in found]).T
    return {
        "ratio": ratio.mean(),
        "spread": (np.mean(spread**2) + np.var(ratio)) ** 0.5,  # over all pairs and seeds
        "spread_one_seed": spread.mean(),
        "lowest": lowest.min(),
        "highest": highest.max(),
        "agreement": agreement.mean(),
        "agreement_error": agreement.std(ddof=1) / len(found) ** 0.5,
    }


def costs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of each sketch of 1,024 numbers: logits given, head prepared, and preparing it."""
    batch, time, width, vocab = options.cost
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(batch, time, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator)
    logits, rows = hidden @ weight.T, []
    for kind, make in KINDS.items():
        sketch, head = make(1024, vocab, 0), uds.Head(weight)

        def dense(sketch: Any = sketch) -> Any:
            return sketch(logits)

        def prepared(sketch: Any = sketch, head: uds.Head = head) -> Any:
            return sketch(head(hidden))

        def preparing(sketch: Any = sketch) -> Any:
            return uds.Head(weight).projection(sketch)

        timed = {"dense": dense, "prepared": prepared, "preparing": preparing}
        rows.append({"kind": kind, **{name: measure.seconds(run, repeat=3) for name, run in timed.items()}})
    return rows


def report(rows: list[dict[str, Any]], sizes: list[int]) -> None:
    """Tables for people."""
    for model, centre in dict.fromkeys((row["model"], row["centre"]) for row in rows):
        here = [row for row in rows if (row["model"], row["centre"]) == (model, centre)]
        first = here[0]
        print(f"\n{model}, V={first['vocab']}, centre={centre}, first singular value {first['first_share']:.0%}")
        print(f"{'spread, agreement':24}" + "".join(f"{size:>14}" for size in sizes))
        for kind in KINDS:
            cells = [f"{row['spread']:.1%}, {row['agreement']:.2f}" for row in here if row["kind"] == kind]
            print(f"{kind:24}" + "".join(f"{cell:>14}" for cell in cells))


def report_costs(rows: list[dict[str, Any]], shape: list[int]) -> None:
    """The table of seconds."""
    batch, time, width, vocab = shape
    print(
        f"\nms for 1,024 numbers, B={batch} N={time} h={width} V={vocab}, float32, {torch.get_num_threads()} thread(s)"
    )
    print(f"{'':24}" + "".join(f"{name:>12}" for name in ("dense", "prepared", "preparing")))
    for row in rows:
        print(f"{row['kind']:24}" + "".join(f"{1e3 * row[name]:12.1f}" for name in ("dense", "prepared", "preparing")))


def plot() -> None:
    """Spread and agreement against size, one column a model, raw logits as in the paper."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    rows = [row for row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if row["centre"] == "none"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(2, len(models), figsize=(3.1 * len(models), 5.2), sharex=True, sharey="row")
    for column, model in enumerate(models):
        here = [row for row in rows if row["model"] == model]
        _draw_column(axes[:, column], here)
        title = f"{model}\nV = {here[0]['vocab']:,}, first singular value {here[0]['first_share']:.0%}"
        axes[0, column].set_title(title, fontsize=9)
        axes[1, column].set_xlabel("numbers in the sketch")
    axes[0, 0].set_ylabel("spread of distances")
    axes[1, 0].set_ylabel("rank agreement of means")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)


def _draw_column(axes: Any, rows: list[dict[str, Any]]) -> None:
    styles = {"shifted": ("#0072b2", "o"), "paired": ("#d55e00", "s"), "grid, balanced": ("#009e73", "^")}
    greys = {"grid, 16 x d/16": ("#888888", "v"), "grid, 8 x d/8 (paper)": ("#222222", "D")}
    sizes = sorted({row["dim"] for row in rows})
    for kind, (colour, marker) in {**styles, **greys}.items():
        mine = [row for row in rows if row["kind"] == kind]
        for axis, name in zip(axes, ("spread", "agreement"), strict=True):
            values = [row[name] for row in mine]
            axis.plot([row["dim"] for row in mine], values, color=colour, marker=marker, ms=4, lw=1.4, label=kind)
    axes[0].plot(sizes, [(2 * size) ** -0.5 for size in sizes], color="#bbbbbb", ls=":", label="dense signs, in theory")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        axis.grid(alpha=0.25)
    axes[0].set_yscale("log")
    axes[0].set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %"])
    axes[0].minorticks_off()


def main() -> None:
    """Measure, and print tables and a JSON line; or draw."""
    options = parse()
    if options.plot:
        plot()
        return
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = [row for name in options.names for row in distortions(options, name)]
    report(rows, options.sizes)
    timed = costs(options)
    report_costs(timed, options.cost)
    settings = {name: getattr(options, name) for name in ("sizes", "seeds", "items", "tokens", "cost")}
    line = {"benchmark": "sketches", "settings": settings, "rows": rows, "costs": timed, **measure.surroundings()}
    print("\n" + json.dumps(line))
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
