"""What each policy costs for a candidate, in forward passes of the model.

    python benchmarks/policies.py                 # measures, prints a table and one JSON line
    python benchmarks/policies.py --write         # and keeps the line in results/policies.json
    python benchmarks/policies.py --device cuda --bf16 --width 896 --layers 24 --write    # policies_cuda.json

All in one run, on the same batch. The unit is a forward pass of the backbone without gradients: *passes* of it that a
policy needs for each candidate, and the seconds of its `examine` and `choose` in that unit. `examine` is given the
hidden states of that pass and the head, prepared where it is frozen; with a head that trains, everything is derived
anew in each step, as the trainers do. GREATS has a validation batch half as large, whose pass counts. Two models: a
pretrained one on worked answers of GSM8K, where it is at hand, and a random Qwen2 with a vocabulary of 151,936.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import measure
import torch
from step import VOCAB, Batch, placed, pretrained, random_qwen

import uds_core as uds

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "textbook4m")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "gsm8k" / "train.jsonl")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--time", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--width", type=int, default=256, help="of the random model")
    parser.add_argument("--layers", type=int, default=4, help="of the random model")
    parser.add_argument("--bf16", action="store_true", help="weights in bfloat16")
    parser.add_argument("--qwen7b", action="store_true", help="the random model has the sizes of Qwen2.5-7B")
    parser.add_argument("--only-random", action="store_true", help="without the pretrained model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vocab", type=int, default=VOCAB, help="of the random model")
    parser.add_argument("--policy", action="append", help="only these; default: all")
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


class Pool:
    """The candidates of a batch: what a forward pass left of them."""

    def __init__(self, model: Any, batch: Batch) -> None:
        self.model, self.batch = model.eval(), batch
        self.labels = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
        self.hidden = self.forward()

    def forward(self) -> torch.Tensor:
        """Hidden states (batch, time, width): the unit of all costs."""
        with torch.no_grad():
            inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask")}
            return self.model.get_decoder()(**inputs, use_cache=False).last_hidden_state

    def head(self, *, frozen: bool) -> uds.Head:
        """The model's head."""
        return uds.Head(self.model.get_output_embeddings().weight.detach(), frozen=frozen)

    def candidates(self, head: uds.Head, part: slice = slice(None)) -> uds.Candidates:
        """What a policy is given, whatever it asks for."""
        number = len(self.hidden[part])
        logits, mask, labels = head(self.hidden[part]), self.batch["attention_mask"][part], self.labels[part]
        columns: dict[str, Any] = {
            "ids": torch.arange(number),
            "reference_loss": torch.ones(number, device=mask.device),
        }
        return uds.Candidates(logits, mask=mask, labels=labels, **columns)


def measured(policy: uds.Policy, pool: Pool, *, frozen: bool, repeat: int) -> dict[str, float]:
    """Seconds of `examine` and of `choose`, and forward passes for each candidate."""
    prepared = pool.head(frozen=frozen)
    half = slice(len(pool.hidden) // 2)
    validates = uds.name_of(policy) == "greats"

    def examine() -> uds.Features:
        head = prepared if frozen else pool.head(frozen=False)
        candidates = pool.candidates(head)
        if validates:
            candidates.extra["validation"] = pool.candidates(head, half)
        return policy.examine(candidates)

    features = examine()
    _, state = policy.choose(None, features)
    return {
        "passes": (1.5 if validates else 1.0) if policy.needs.forward_pass else 0.0,
        "examine": measure.seconds(examine, repeat=repeat),
        "choose": measure.seconds(lambda: policy.choose(state, features), repeat=repeat),
    }


def reads_no_tokens(name: str) -> bool:
    """Whether a policy reads what a forward pass leaves, and neither token ids nor a target."""
    needs = uds.get(name)().needs
    return name != "rds" and not (needs.glance or needs.ngrams or needs.ngram_counts)


def rows(model: Any, batch: Batch, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Costs of each policy, with a frozen head and with one that trains, in forward passes."""
    pool = Pool(model, batch)
    found: dict[str, dict[str, float]] = {}
    for name in options.policy or [name for name in uds.names() if reads_no_tokens(name)]:
        policy = uds.get(name)(count=options.keep) if hasattr(uds.get(name), "count") else uds.get(name)()
        # forwards beside each policy: what slows the machine down slows both
        forward = measure.seconds(pool.forward, repeat=options.repeat)
        row = {"forward": forward}
        for head in ("frozen", "training"):
            seconds = measured(policy, pool, frozen=head == "frozen", repeat=options.repeat)
            row |= {f"{head}_{part}": value for part, value in seconds.items() if part != "passes"}
            row["passes"] = seconds["passes"]
            row[f"x_{head}"] = seconds["passes"] + (seconds["examine"] + seconds["choose"]) / forward
        found[name] = row
    return dict(sorted(found.items(), key=lambda item: item[1]["x_frozen"]))


def report(case: str, found: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    """A table for people."""
    print(f"\n{case}; B = {options.batch}, K = {options.keep}, N <= {options.time}, {options.threads} thread(s)")
    print(f"{'':20}{'passes':>8}{'examine ms':>12}{'choose ms':>11}{'total':>8}{'head trains':>13}")
    for name, row in found.items():
        milliseconds = f"{1e3 * row['frozen_examine']:12.2f}{1e3 * row['frozen_choose']:11.2f}"
        print(f"{name:20}{row['passes']:8.1f}{milliseconds}{row['x_frozen']:8.2f}{row['x_training']:13.2f}")


def main() -> None:
    """Measure, and print tables and a JSON line."""
    options = parse()
    torch.set_num_threads(options.threads)
    makers = {f"random Qwen2, V = {options.vocab:,}": random_qwen}
    if not options.only_random and options.model.is_dir() and options.data.is_file():
        makers = {options.model.name: pretrained, **makers}
    cases = {}
    for case, make in makers.items():
        model, batch = make(options)
        cases[case] = rows(*placed(model, batch, options), options)
        report(case, cases[case], options)
    names = ("batch", "keep", "time", "width", "layers", "bf16", "repeat", "device", "vocab")
    settings = {name: getattr(options, name) for name in names}
    line = {"benchmark": "policies", "settings": settings, "rows": cases, **measure.surroundings(options.device)}
    print("\n" + json.dumps(line))
    if options.write:
        measure.results("policies", options.device).write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
