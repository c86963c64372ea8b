"""Time and memory of `examine` against the authors' algorithm, in one run.

    python benchmarks/scoring.py            # the head of Qwen2.5-0.5B: 2 samples of 128 tokens
    python benchmarks/scoring.py --device cuda --write   # on a GPU, into results/scoring_cuda.json

Prints tables and one JSON line. Both sides start from hidden states and the LM head, as a scoring pass has them. The
head that trains does so for `--steps` steps of AdamW at each `--rate`, by the cross-entropy of random targets; its rows
are means over these steps, preparations included, without the training itself.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import measure
import torch
from authors import Authors

import uds_core as uds
from uds_adapters.scoring.prepared_head import HEAD_TOLERANCE, PreparedHead


def parse() -> argparse.Namespace:
    """The shape, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--time", type=int, default=128)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of the head that trains")
    parser.add_argument("--rate", type=float, nargs="+", default=[2e-5, 2e-6], help="its learning rates")
    parser.add_argument(
        "--tolerance", type=float, default=HEAD_TOLERANCE, help="how far it may move before it is corrected"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="weight and hidden states in bfloat16")
    parser.add_argument("--write", action="store_true", help="into results/")
    return parser.parse_args()


def tensors(shape: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states with a common part, as real ones have, and a head."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(shape.batch, shape.time, shape.width, generator=generator)
    hidden = hidden + 2 * torch.randn(shape.width, generator=generator)
    weight = torch.randn(shape.vocab, shape.width, generator=generator) / shape.width**0.5
    dtype = torch.bfloat16 if shape.bf16 else torch.float32
    return hidden.to(shape.device, dtype), weight.to(shape.device, dtype)


def over_steps(shape: argparse.Namespace, weight: torch.Tensor, policy: uds.UDS, rate: float) -> dict[str, float]:
    """Mean seconds of `examine` while the head trains, prepared when it has moved, and the last error of a utility."""
    generator = torch.Generator().manual_seed(1)
    weight, prepared = torch.nn.Parameter(weight.clone()), PreparedHead(shape.tolerance)
    optimizer = torch.optim.AdamW([weight], lr=rate, weight_decay=0.0)
    common, seconds = 2 * torch.randn(shape.width, generator=generator), 0.0
    features: uds.Features = {}
    hidden = torch.empty(0)

    def examine() -> None:
        nonlocal features
        movement = prepared.movement(weight.detach(), None)
        moved = None if movement is None else (float(movement[0]), float(movement[1]))
        head = prepared.head(weight.detach(), None, 1.0, moved)
        features = policy.examine(uds.Candidates(head(hidden)))

    for step in range(shape.steps):
        if step:  # one step of training
            flat = hidden.flatten(0, 1)
            gradient = torch.softmax(flat @ weight.T, 1)
            targets = torch.randint(0, shape.vocab, (len(flat), 1), generator=generator).to(shape.device)
            gradient.scatter_add_(1, targets, torch.full_like(flat[:, :1], -1.0))
            weight.grad = gradient.T @ flat / len(flat)
            del gradient
            optimizer.step()
        hidden = (torch.randn(shape.batch, shape.time, shape.width, generator=generator) + common).to(
            shape.device, weight.dtype
        )
        seconds += measure.once(examine)
    exact = policy.examine(uds.Candidates(uds.Head(weight.detach(), frozen=False)(hidden)))["utility"]
    error = float((features["utility"] / exact - 1).abs().max())
    return {
        "seconds": seconds / shape.steps,
        "preparations": prepared.preparations,
        "corrections": prepared.corrections,
        "utility_error": error,
    }


def main() -> None:
    """Measure, and print a table and a JSON line."""
    shape = parse()
    torch.set_num_threads(shape.threads)
    torch.set_grad_enabled(False)
    hidden, weight = tensors(shape)
    authors = Authors(time=512, vocab=shape.vocab, device=shape.device)
    policy = uds.UDS(keep=0.5)

    head = uds.Head(weight)

    def ours() -> Any:
        return policy.examine(uds.Candidates(head(hidden)))

    preparing = measure.once(ours)

    def trainable() -> Any:
        return policy.examine(uds.Candidates(uds.Head(weight, frozen=False)(hidden)))

    def theirs() -> Any:
        return authors.examine((hidden @ weight.T).float())

    def dense_from(logits: torch.Tensor) -> Callable[[], Any]:
        return lambda: policy.examine(uds.Candidates(logits))

    rows: dict[str, dict[str, float]] = {}
    for name, run, prepare in (
        ("authors: logits, SVD, two full FFTs", theirs, lambda: theirs),
        ("head route, prepared", ours, lambda: ours),
        ("head route, head trains, prepared in each step", trainable, lambda: trainable),
        ("dense route, logits given", dense_from(hidden @ weight.T), lambda: dense_from(hidden @ weight.T)),
    ):
        extra = measure.peak_bytes(prepare, device=shape.device)
        rows[name] = {"seconds": measure.seconds(run, repeat=shape.repeat), "extra_bytes": extra}

    def preparing_again() -> Any:
        return policy.examine(uds.Candidates(uds.Head(weight, factor_by="gram")(hidden)))

    extra = measure.peak_bytes(lambda: preparing_again, device=shape.device)
    for rate in shape.rate:
        rows[_trained(rate)] = {**over_steps(shape, weight, policy, rate), "extra_bytes": extra}
    base = rows["authors: logits, SVD, two full FFTs"]
    for row in rows.values():
        row["times_faster"] = base["seconds"] / row["seconds"]
        row["times_less_memory"] = base["extra_bytes"] / max(row["extra_bytes"], 1)
    exact = uds.nuclear_norm(head(hidden), method="svd")
    error = (exact - authors.examine((hidden @ weight.T).float())[0]).abs().max() / exact.max()
    report(shape, rows, preparing=preparing, error=float(error))
    names = ("batch", "time", "width", "vocab", "bf16", "threads", "repeat", "steps", "rate", "tolerance")
    sizes = {name: getattr(shape, name) for name in names}
    line = {"benchmark": "scoring", "shape": sizes, "rows": rows, "preparing_seconds": preparing}
    line |= {"utility_error": float(error), **measure.surroundings(shape.device)}
    print("\n" + json.dumps(line))
    if shape.write:
        measure.results("scoring", shape.device).write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


def report(shape: argparse.Namespace, rows: dict[str, dict[str, float]], *, preparing: float, error: float) -> None:
    """The table for people."""
    kind = "bfloat16" if shape.bf16 else "float32"
    print(f"B={shape.batch} N={shape.time} h={shape.width} V={shape.vocab}, {kind}, {shape.threads} thread(s)\n")
    print(f"{'':50}{'ms':>10}{'faster':>10}{'extra MiB':>12}{'less memory':>14}")
    for name, row in rows.items():
        print(
            f"{name:50}{1e3 * row['seconds']:10.1f}{row['times_faster']:9.1f}x"
            f"{row['extra_bytes'] / 2**20:12.1f}{row['times_less_memory']:13.1f}x"
        )
    for rate in shape.rate:
        again = rows[_trained(rate)]
        print(
            f"\nat a learning rate of {rate:g} prepared {again['preparations']:.0f} and corrected "
            f"{again['corrections']:.0f} times in {shape.steps} steps; utilities of the last are within "
            f"{again['utility_error']:.1e} of exact ones"
        )
    print(f"preparing a frozen head, once: {preparing:.1f} s; largest relative difference of utilities: {error:.1e}\n")


def _trained(rate: float) -> str:
    return f"head route, head trains at {rate:g}"


if __name__ == "__main__":
    main()
