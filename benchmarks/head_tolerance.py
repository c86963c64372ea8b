"""Whether a head that is prepared seldom chooses what exact preparation chooses, in a real fine-tuning.

    python benchmarks/head_tolerance.py                # ScienceQA, textbook4m, 200 steps at each rate and tolerance
    python benchmarks/head_tolerance.py --write        # and keeps the rows in results/head_tolerance.json
    python benchmarks/head_tolerance.py --model FOLDER --rate 2e-5 --batch 8 --steps 100   # of another model

All weights train, by AdamW. In each step the candidates are scored twice: as in training, with `--tolerance`, and with
a head prepared in that step. Both choose from the same state; the samples trained are those of the first. Of each
learning rate: the steps with equal picks, the largest relative error of a utility, the furthest that a reused head had
moved, and how often the head was prepared and corrected.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import measure
import torch
from prediction import SHARED, collate, encoded

import uds_core as uds

COLUMNS = {
    "rate": 8,
    "tolerance": 11,
    "picks equal": 14,
    "utility error": 15,
    "movement": 10,
    "prepared": 10,
    "corrected": 11,
}


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/ and models/")
    parser.add_argument("--model", default="textbook4m", help="in models/, or a path")
    parser.add_argument("--task", default="scienceqa")
    parser.add_argument("--policy", default="uds")
    parser.add_argument("--rate", type=float, nargs="+", default=[1e-4, 2e-5])
    parser.add_argument("--tolerance", type=float, nargs="+", default=[0.0005, 0.005])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--bf16", action="store_true", help="weights in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    options.held = 0
    return options


def row(rate: float, tolerance: float, options: argparse.Namespace) -> dict[str, Any]:
    """Train at one learning rate, and compare each step's choice with that of exact preparation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from uds_adapters import batches
    from uds_adapters.scoring.batch_scorer import BatchScorer
    from uds_adapters.torch import BatchSelector

    torch.manual_seed(options.seed)
    folder = options.shared / "models" / options.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    examples = encoded(options.task, tokenizer, options)
    policy = uds.make_policy(options.policy, keep=options.keep, seed=options.seed)
    select = BatchSelector(model, policy, head_tolerance=tolerance)
    exact = BatchScorer(model, policy, select.ranks, head_tolerance=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    equal, worst, furthest = 0, 0.0, 0.0
    for step in range(options.steps):
        batch = collate([examples[(step * options.batch + i) % len(examples)] for i in range(options.batch)])
        model.train()
        state = select.history.state
        expected = policy.choose(state, exact.features(policy, [batches.view(batch)]))[0]
        chosen = select(batch)
        assert select.last is not None
        equal += sorted(select.last.indices.tolist()) == sorted(expected.indices.tolist())
        for name in expected.parts.keys() & {"utility"}:
            error = (select.last.parts[name] / expected.parts[name] - 1).abs()
            worst = max(worst, float(error.nan_to_num().max()))
        prepared = select._batch_scorer._scorer._reader.prepared  # pyright: ignore[reportOptionalMemberAccess]
        furthest = max(furthest, prepared._last[0])
        model(**chosen).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "rate": rate, "tolerance": tolerance, "steps": options.steps, "equal": equal, "utility_error": worst,
        "movement": furthest, "prepared": prepared.preparations, "corrected": prepared.corrections,
    }  # fmt: skip


def main() -> None:
    """Measure, and print a table and a JSON line."""
    options = parse()
    torch.set_num_threads(options.threads)
    print("".join(f"{name:>{width}}" for name, width in COLUMNS.items()))
    rows = []
    for tolerance in options.tolerance:
        for rate in options.rate:
            rows.append(row(rate, tolerance, options))
            one = rows[-1]
            print(
                f"{rate:8.0e}{tolerance:11.0e}{one['equal']:8} of {one['steps']:3}{one['utility_error']:15.1e}"
                f"{one['movement']:10.1e}{one['prepared']:10}{one['corrected']:11}",
                flush=True,
            )
    names = ("model", "task", "policy", "batch", "keep", "length", "bf16", "seed")
    settings = {name: getattr(options, name) for name in names} | {"model": Path(options.model).name}
    line = {"benchmark": "head_tolerance", "settings": settings, "rows": rows, **measure.surroundings()}
    print("\n" + json.dumps(line))
    if options.write:
        measure.results("head_tolerance", "cpu").write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
