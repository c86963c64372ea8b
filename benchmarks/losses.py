"""Losses and entropies through a head, against one product of the hidden states and its weight.

    python benchmarks/losses.py              # 16 samples of 128 tokens, V = 151,936
    python benchmarks/losses.py --write      # and keeps the line in results/losses.json
    python benchmarks/losses.py --model MODELS/SmolLM2-135M-Instruct --data DATA/gsm8k/train.jsonl    # errors

The unit is ``hidden @ weight.T`` in the same precision, into memory that is reused; product and losses are measured in
turn, best of all turns. Prints a table and one JSON line. With `--model` nothing is timed: the losses of 64 items in
bfloat16, and those estimated from a sample of the vocabulary, against losses of the same hidden states in float32.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import torch

import uds_core as uds
from uds_core.losses import loss_and_entropy


def parse() -> argparse.Namespace:
    """The shape, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--time", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--width", type=int, action="append", help="of the hidden states; default: 256 and 896")
    parser.add_argument("--model", type=Path, help="measure errors with it, and no times")
    parser.add_argument("--data", type=Path, help="JSONL with `question` and `answer`, for --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shared", action="store_true", help="CPU seconds, on a machine that others use")
    parser.add_argument("--write", action="store_true", help="into results/")
    return parser.parse_args()


def cases(shape: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds of the product and of each loss, for each width and precision."""
    for width in shape.width or [256, 896]:
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator().manual_seed(0)
            hidden = torch.randn(shape.batch, shape.time, width, generator=generator).to(shape.device, dtype)
            weight = (torch.randn(shape.vocab, width, generator=generator) / width**0.5).to(shape.device, dtype)
            labels = torch.randint(shape.vocab, hidden.shape[:2], generator=generator).to(shape.device)
            rows = hidden.reshape(-1, width)
            product = torch.empty(len(rows), shape.vocab, dtype=dtype, device=shape.device)
            logits = uds.Head(weight)(hidden)
            runs: dict[str, Callable[[], Any]] = {
                "product": lambda: torch.mm(rows, weight.T, out=product),  # noqa: B023 - run before the next
                "loss": lambda: uds.cross_entropy(logits, labels),  # noqa: B023
                "entropy": lambda: uds.entropy(logits),  # noqa: B023
                "both": lambda: loss_and_entropy(logits, labels),  # noqa: B023
            }
            seconds = measure.in_turn(runs, repeat=shape.repeat, shared=shape.shared)
            ratios = {f"{name}_over_product": seconds[name] / seconds["product"] for name in runs if name != "product"}
            yield {"width": width, "dtype": str(dtype).removeprefix("torch."), **seconds, **ratios}


def real(shape: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states (64, time, width) of a model in bfloat16, labels, and its head's weight."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shape.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lines = shape.data.read_text(encoding="utf-8").splitlines()[:64]
    texts = ["{question}\n{answer}".format(**json.loads(line)) for line in lines]
    batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=shape.time)
    model: Any = AutoModelForCausalLM.from_pretrained(shape.model, dtype=torch.bfloat16).eval()
    pieces = zip(batch["input_ids"].split(16), batch["attention_mask"].split(16), strict=True)
    hidden = [model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state for ids, mask in pieces]
    targets = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels = torch.nn.functional.pad(targets[:, 1:], (0, 1), value=-100)
    return torch.cat(hidden), labels, model.get_output_embeddings().weight


def errors(hidden: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor) -> list[dict[str, Any]]:
    """Errors of losses and entropies of samples, in nats, and rank correlations with exact ones."""
    scored = labels != -100
    wide, head = uds.Head(weight.float())(hidden.float()), uds.Head(weight)(hidden)
    loss, unsure = uds.cross_entropy(wide, labels), uds.entropy(wide, mask=scored)
    found = {
        "loss, bfloat16": (uds.cross_entropy(head, labels), loss),
        "entropy, bfloat16": (uds.entropy(head, mask=scored), unsure),
    }
    for number in (2_048, 4_096, 8_192):
        for seed in range(3):
            estimate = uds.cross_entropy(head, labels, vocabulary=number, seed=seed)
            found[f"loss, {number:,} tokens, seed {seed}"] = (estimate, loss)
    rows = []
    for name, (got, exact) in found.items():
        ranks = torch.stack([got, exact]).argsort(1).argsort(1).float()
        error = got - exact
        row = {"bias": error.mean(), "sd": error.std(), "largest": error.abs().max(), "sd_exact": exact.std()}
        row["rank"] = torch.corrcoef(ranks)[0, 1]
        rows.append({"what": name, **{key: float(value) for key, value in row.items()}})
        cells = "".join(f"{key} {value:.4f}  " for key, value in rows[-1].items() if key != "what")
        print(f"{name:32}{cells}")
    return rows


def report(rows: list[dict[str, Any]], shape: argparse.Namespace) -> None:
    """The table for people."""
    print(f"B={shape.batch} N={shape.time} V={shape.vocab}, {shape.threads} thread(s)\n")
    print(f"{'h':>6}{'precision':>11}{'product ms':>12}{'loss':>8}{'entropy':>9}{'both':>8}   times the product")
    for row in rows:
        times = f"{row['loss_over_product']:8.2f}{row['entropy_over_product']:9.2f}{row['both_over_product']:8.2f}"
        print(f"{row['width']:6}{row['dtype']:>11}{1e3 * row['product']:12.0f}{times}")


def main() -> None:
    """Measure, and print a table and a JSON line."""
    shape = parse()
    torch.set_num_threads(shape.threads)
    torch.set_grad_enabled(False)
    if shape.model is not None:
        print("\n" + json.dumps({"benchmark": "loss errors", "rows": errors(*real(shape))}))
        return
    rows = list(cases(shape))
    report(rows, shape)
    settings = {name: getattr(shape, name) for name in ("batch", "time", "vocab", "threads", "repeat", "shared")}
    line = {"benchmark": "losses", "shape": settings, "rows": rows, **measure.surroundings(shape.device)}
    print("\n" + json.dumps(line))
    if shape.write:
        measure.results("losses", shape.device).write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
