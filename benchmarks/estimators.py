"""Error and time of every estimator of the nuclear norm, on real hidden states and on prescribed spectra.

    python benchmarks/estimators.py               # measures, prints tables and one JSON line
    python benchmarks/estimators.py --write       # and keeps the line in benchmarks/results/estimators.json
    python benchmarks/estimators.py --plot        # draws docs/figures/estimators.svg and .png from it, by matplotlib

The truth is the sum of the singular values in float64. Real: worked answers of GSM8K under small pretrained models,
through the same scoring pass as in training. "chosen": the share of samples kept at an eighth of each batch of 8, that
are the same as by the truth. The models and the data are not part of the project; `--models` and `--data` say where
they are.
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
RESULTS = ROOT / "benchmarks" / "results" / "estimators.json"
FIGURE = ROOT / "docs" / "figures" / "estimators"
BATCH = 8  # candidates of a step, as in the paper

Estimate = Callable[[Any, Any], torch.Tensor]


def estimators(ranks: list[int]) -> dict[str, Estimate]:
    """Every method, and the randomized one at each rank."""

    def named(**options: Any) -> Estimate:
        return lambda logits, mask: uds.nuclear_norm(logits, mask=mask, **options)

    exact = {method: named(method=method) for method in ("svd", "eigh", "polar")}
    partial = {f"randomized {rank}": named(method="randomized", rank=rank) for rank in ranks}
    return {**exact, **partial, "frobenius": named(method="frobenius")}


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "gsm8k" / "train.jsonl")
    parser.add_argument("--names", nargs="+", default=["stories260k", "babyllama361", "textbook4m"])
    parser.add_argument("--centres", nargs="+", default=["none", "row"])
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 8, 16, 32])
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--shape", nargs=2, type=int, default=[512, 896], metavar=("N", "H"), help="synthetic spectra")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


def real_batches(options: argparse.Namespace, name: str) -> Iterator[tuple[Any, torch.Tensor]]:
    """Logits of the items in batches, as the scoring pass hands them to a policy, and the mask of their tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from uds_adapters.scoring.scorer import Scorer

    lines = options.data.read_text(encoding="utf-8").splitlines()[: options.items]
    texts = ["{question}\n{answer}".format(**json.loads(line)) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(options.models / name)
    scorer = Scorer(AutoModelForCausalLM.from_pretrained(options.models / name).requires_grad_(False))
    for start in range(0, len(texts), BATCH):
        tokens = [
            tokenizer(text, truncation=True, max_length=options.tokens).input_ids
            for text in texts[start : start + BATCH]
        ]
        longest = max(map(len, tokens))
        ids = torch.tensor([line + [0] * (longest - len(line)) for line in tokens])
        mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in tokens])
        yield scorer({"input_ids": ids, "attention_mask": mask, "labels": ids}).logits, mask.bool()


def on_real(options: argparse.Namespace, name: str) -> Iterator[dict[str, Any]]:
    """One row for each centre and method: error, time of a batch, and what is chosen."""
    batches = list(real_batches(options, name))
    for centre in options.centres:
        views = [(logits.centred(centre), mask) for logits, mask in batches]
        truths = [_truth(logits, mask) for logits, mask in views]
        about = {"source": name, "centre": centre, "rows": views[0][0].shape[1], "width": views[0][0].head.width}
        for method, estimate in estimators(options.ranks).items():
            found = [estimate(logits, mask).double() for logits, mask in views]
            pairs = list(zip(found, truths, [mask for _, mask in views], strict=True))
            yield {
                **about,
                "method": method,
                **_errors(torch.cat(found), torch.cat(truths)),
                "seconds": _seconds(estimate, views[0], options.repeat),
                "chosen": float(np.mean([_agree(one, truth, mask, kept=1) for one, truth, mask in pairs])),
                "chosen_half": float(
                    np.mean([_agree(one, truth, mask, kept=BATCH // 2) for one, truth, mask in pairs])
                ),
            }
        for rank in options.ranks:
            bounds = [uds.nuclear_bounds(logits, mask=mask, rank=rank) for logits, mask in views]
            low, high = (torch.cat([bound[side] for bound in bounds]).double() for side in (0, 1))
            truth = torch.cat(truths)
            yield {**about, "bounds": rank, "low": float((low / truth).mean()), "high": float((high / truth).mean())}


def on_spectra(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each prescribed spectrum and method, float32 matrices made in float64."""
    time, width = options.shape
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(size, time)))[0] for size in (time, width))
    k = np.arange(1.0, time + 1)
    spectra = {
        "flat": k**0,
        "k^-0.7, first 20": np.r_[20, k[1:] ** -0.7],
        "k^-1.2, first 50": np.r_[50, k[1:] ** -1.2],
        "k^-2": k**-2,
        "falling evenly to 1e-8": np.geomspace(1, 1e-8, time),
        "1, then 1e-7": np.r_[1, np.full(time - 1, 1e-7)],
    }
    for name, values in spectra.items():
        x = torch.tensor((left * values) @ right.T, dtype=torch.float32)[None]
        truth = torch.linalg.svdvals(x.double()).sum(dim=1)
        for method, estimate in {**estimators(options.ranks), "eigh, float32 alone": _eigh_narrow}.items():
            seconds = _seconds(estimate, (x, None), options.repeat)
            yield {"source": name, "method": method, **_errors(estimate(x, None).double(), truth), "seconds": seconds}


def _eigh_narrow(logits: Any, _mask: Any) -> torch.Tensor:
    """As on a device without float64."""
    from uds_core.estimators import by_eigenvalues

    return by_eigenvalues(logits @ logits.mT)


def _truth(logits: Any, mask: torch.Tensor) -> torch.Tensor:
    head = logits.head
    wide = uds.Head(head.weight.double(), None if head.bias is None else head.bias.double(), head.scale)
    view = wide.centred() if head._offset is not None else wide
    return uds.nuclear_norm(view(logits.hidden.double()), mask=mask, method="svd")


def _errors(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    relative = (found / truth - 1).abs()
    # the rank correlation is what a choice sees
    order = [x.argsort().argsort().double() for x in (found, truth)]
    agreement = float(torch.corrcoef(torch.stack(order))[0, 1]) if len(found) > 1 else 1.0
    return {"error": float(relative.mean()), "worst": float(relative.max()), "rank_correlation": agreement}


def _agree(found: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, *, kept: int) -> float:
    """Share of the best `kept` by `found` that are also the best by `truth`, per root of the length as by default."""
    root = mask.sum(dim=1).double() ** 0.5
    best = [set((values / root).argsort(descending=True)[:kept].tolist()) for values in (found, truth)]
    return len(best[0] & best[1]) / kept


def _seconds(estimate: Estimate, view: tuple[Any, Any], repeat: int) -> float:
    return measure.seconds(lambda: estimate(*view), repeat=repeat)


def report(rows: list[dict[str, Any]]) -> None:
    """Tables for people."""
    for key in dict.fromkeys((row["source"], row.get("centre")) for row in rows):
        here = [row for row in rows if (row["source"], row.get("centre")) == key]
        centre = "" if key[1] is None else f", centre={key[1]}"
        print(f"\n{key[0]}{centre}\n{'':22}{'error':>10}{'worst':>10}{'ms':>9}{'ranks':>8}{'1 of 8':>8}{'4 of 8':>8}")
        for row in (row for row in here if "method" in row):
            cells = "".join(
                f"{row[name]:8.2f}" for name in ("rank_correlation", "chosen", "chosen_half") if name in row
            )
            print(
                f"{row['method']:22}{row['error']:10.1e}{row['worst']:10.1e}{1e3 * row['seconds']:9.2f}"
                + (cells if "chosen" in row else "")
            )
        for row in (row for row in here if "bounds" in row):
            print(f"bounds at rank {row['bounds']:<7}{row['low']:10.3f}{row['high']:10.3f} of the truth, mean")


def plot() -> None:
    """Error against time: real logits on the left, prescribed spectra on the right."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": "uds", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    result = json.loads(RESULTS.read_text(encoding="utf-8"))
    real = [row for row in result["rows"] if row.get("centre") == "row" and "method" in row]
    made = [row for row in result["rows"] if "centre" not in row and row["method"] != "eigh, float32 alone"]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.3), sharey=True)
    time, width = result["settings"]["shape"]
    for axis, rows, title in (
        (axes[0], real, "real hidden states, a batch of 8"),
        (axes[1], made, f"prescribed spectra, one {time} x {width} matrix"),
    ):
        _draw(axis, rows)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("milliseconds, one CPU thread")
    axes[0].set_ylabel("relative error, mean over samples")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=8, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(FIGURE.with_suffix(".png"), dpi=150)


def _draw(axis: Any, rows: list[dict[str, Any]]) -> None:
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#aa3377", "#222222")
    markers = "osDv^<>P"
    sources = list(dict.fromkeys(row["source"] for row in rows))
    for place, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        colour = colours[min(place, 3) if method != "frobenius" else 6]
        shade = 1.0 if not method.startswith("randomized") else 0.35 + 0.65 * (place - 3) / 3
        here = [row for row in rows if row["method"] == method]
        x, y = [1e3 * row["seconds"] for row in here], [max(row["error"], 1e-9) for row in here]
        axis.plot(x, y, color=colour, alpha=shade, lw=0, marker=markers[min(place, 3)], ms=6, label=method)
        for row, at, height in zip(here, x, y, strict=True):
            if method == "polar":  # one number for each source, named in the caption
                axis.annotate(str(sources.index(row["source"]) + 1), (at, height), (4, 3), textcoords="offset points")
    lines = "\n".join(f"{number} {name}" for number, name in enumerate(sources, 1))
    axis.text(0.02, 0.3, lines, transform=axis.transAxes, fontsize=7.5, color="#444444", va="center")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.grid(alpha=0.25)


def main() -> None:
    """Measure, and print tables and a JSON line; or draw."""
    options = parse()
    if options.plot:
        plot()
        return
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = [row for name in options.names for row in on_real(options, name)] + list(on_spectra(options))
    report(rows)
    settings = {name: getattr(options, name) for name in ("items", "tokens", "ranks", "shape")}
    line = {"benchmark": "estimators", "settings": settings, "rows": rows, **measure.surroundings()}
    print("\n" + json.dumps(line))
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
