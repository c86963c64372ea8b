"""How well scores are predicted from glances: rank correlation with exact scores after a fine-tuning by them.

    python benchmarks/prediction.py                                # all tasks and scores, prints a table
    python benchmarks/prediction.py --task scienceqa --score entropy --write   # and keeps it in results/prediction.json
    python benchmarks/prediction.py --explore 1    # all choices random, so that the labels are those of usual samples

Each row is a training of its own by `Predicted`: 10 exact choices, then choices by prediction, taught by the training
pass. After the last step, exact and predicted scores of samples that were not candidates are compared: Spearman's rank
correlation, and the partial one, which is left when the numbers of target and prompt tokens are regressed out.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

import uds_core as uds

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent / "quality"))
SHARED = ROOT.parent / "shared"
SCORES = {"loss": "maxloss", "entropy": "entropy", "nuclear norm": "nuclearonly"}
Batch = dict[str, torch.Tensor]


def parse() -> argparse.Namespace:
    """What is measured, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/ and models/")
    parser.add_argument("--model", default="textbook4m")
    parser.add_argument("--task", action="append", help="scienceqa, gsm8k, arc_openbookqa, mmlu or code")
    parser.add_argument("--score", action="append", choices=list(SCORES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--held", type=int, default=600, help="samples that are compared, at most half of all")
    parser.add_argument("--explore", type=float, default=0.25, help="fraction of what is kept that is drawn at random")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def encoded(task: str, tokenizer: Any, options: argparse.Namespace) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of the training records, those without a target within the length left out."""
    from tasks import read

    records, _ = read(task, data=options.shared / "data", seed=options.seed)
    found = []
    for record in records[: options.steps * options.batch + 2 * options.held]:
        prompt = tokenizer(record["prompt"] + "\n").input_ids
        answer = [*tokenizer(record["completion"]).input_ids, tokenizer.eos_token_id]
        if len(prompt) < options.length:
            labels = [-100] * len(prompt) + answer
            found.append(((prompt + answer)[: options.length], labels[: options.length]))
    return found


def collate(examples: list[tuple[list[int], list[int]]]) -> Batch:
    """Padded on the right."""
    longest = max(len(ids) for ids, _ in examples)
    rows = [(ids + [0] * (longest - len(ids)), [1] * len(ids) + [0] * (longest - len(ids))) for ids, _ in examples]
    labels = [labels + [-100] * (longest - len(labels)) for _, labels in examples]
    ids, mask = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor(labels)}


def row(task: str, score: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train by predictions, and compare them with exact scores of other samples."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from uds_adapters import batches
    from uds_adapters.scoring.batch_scorer import BatchScorer
    from uds_adapters.torch import BatchSelector

    torch.manual_seed(options.seed)
    folder = options.shared / "models" / options.model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    examples = encoded(task, tokenizer, options)
    number = min(options.held, len(examples) // 2)
    held, examples = examples[:number], examples[number:]
    policy: Any = uds.Predicted(SCORES[score], keep=options.keep, explore=options.explore, least_correlation=-1.0)
    select = BatchSelector(model, policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, weight_decay=0.0)
    began = time.perf_counter()
    for step in range(options.steps):
        place = [(step * options.batch + i) % len(examples) for i in range(options.batch)]
        model.train()
        model(**select(collate([examples[i] for i in place]))).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.perf_counter() - began
    select.state_dict()  # the last scores are learnt
    scorer = BatchScorer(model, policy, select.ranks)
    features = [
        scorer.features(policy, [batches.view(collate(held[start : start + 16]))], choice=0)
        for start in range(0, len(held), 16)
    ]
    pooled = uds.pool(features)
    exact = pooled["exact"].numpy()
    predicted = policy.learner.predict(select.history.state.learner, pooled["glance"]).numpy()
    lengths = np.array([[sum(label != -100 for label in labels), len(ids)] for ids, labels in held])
    return {
        "task": task,
        "score": score,
        "correlation": correlation(predicted, exact),
        "partial": correlation(predicted, exact, without=lengths),
        "logged": select.history.state.pairs.correlation(),
        "labels": options.batch * policy.warmup + int(options.batch * options.keep) * (options.steps - policy.warmup),
        "seconds": seconds,
    }


def correlation(x: np.ndarray, y: np.ndarray, *, without: np.ndarray | None = None) -> float:
    """Spearman's rank correlation; of what is left of the ranks when those of `without` are regressed out."""
    sides = [_ranks(side) for side in (x, y)]
    if without is not None:
        known = np.stack([np.ones(len(x)), *(_ranks(column) for column in without.T)], axis=1)
        sides = [side - known @ np.linalg.lstsq(known, side, rcond=None)[0] for side in sides]
    a, b = (side - side.mean() for side in sides)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _ranks(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")) / 2.0


def main() -> None:
    """Measure, and print a table and a JSON line."""
    options = parse()
    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'task':16}{'score':14}{'correlation':>13}{'partial':>10}{'in the log':>12}{'labels':>8}{'s':>8}")
    for task in options.task or ["scienceqa", "gsm8k", "arc_openbookqa", "code"]:
        for score in options.score or list(SCORES):
            found = row(task, score, options)
            rows.append(found)
            cells = (found["correlation"], found["partial"], found["logged"])
            print(
                f"{task:16}{score:14}{cells[0]:13.3f}{cells[1]:10.3f}{cells[2]:12.3f}{found['labels']:8}"
                f"{found['seconds']:8.1f}",
                flush=True,
            )
    names = ("model", "steps", "batch", "keep", "explore", "held", "rate", "length", "seed", "threads")
    settings = {name: getattr(options, name) for name in names}
    result = {"benchmark": "prediction", "settings": settings, "rows": rows, **measure.surroundings("cpu")}
    print("\n" + json.dumps(result))
    if options.write:
        file = measure.results("prediction", "cpu")
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        name = f"{options.model}, explore={options.explore:g}"
        new = {(found["task"], found["score"]) for found in rows}
        old = [found for found in known.get(name, {}).get("rows", ()) if (found["task"], found["score"]) not in new]
        made = {**known, name: {**result, "rows": old + rows}}
        file.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
