"""How well near-duplicates are recognised: by token n-grams, and by sketches of logits.

    python benchmarks/duplicates.py               # measures, prints a table and one JSON line
    python benchmarks/duplicates.py --write       # and keeps the line in benchmarks/results/duplicates.json

Each data set is read once, in random order, a pool at a time; a random quarter is chosen, and `Fresh` says which
candidates are near-duplicates. Where near-duplicates were made (`redundant`), or the authors of a data set publish one
without them (`toolformer`), precision and recall are taken; elsewhere the fraction that is flagged. Data and models are
not part of the project; `--models` and `--data` say where they are.
"""

import argparse
import json
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
RESULTS = ROOT / "benchmarks" / "results" / "duplicates.json"
sys.path.insert(0, str(ROOT / "benchmarks" / "quality"))

import conditions  # noqa: E402
import tasks  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

import uds_core as uds  # noqa: E402


class Texts(NamedTuple):
    """Prompts and completions, and what is known of their near-duplicates."""

    pairs: list[tuple[str, str]]
    origins: list[int] | None  # equal where one was made of the other
    dropped: list[bool] | None  # by the authors, as a near-duplicate of another record


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--model", default="textbook4m")
    parser.add_argument("--by", nargs="+", default=["tokens", "logits"])
    parser.add_argument("--sets", nargs="+", default=["toolformer", "roleplay", "alpaca", "lima", *made()])
    parser.add_argument("--pool", type=int, default=16)
    parser.add_argument("--items", type=int, default=4000, help="at most, of each set")
    parser.add_argument("--thresholds", nargs="+", type=float, default=[0.4, 0.5, 0.6])
    parser.add_argument("--write", action="store_true")
    return parser.parse_args()


def made() -> list[str]:
    """Names of the study's tasks, as they are and with near-duplicates made."""
    return [f"{task} {kind}" for kind in ("clean", "redundant") for task in ("gsm8k", "scienceqa", "mmlu")]


def texts(name: str, data: Path) -> Texts:
    """Return the records of a set."""
    if name == "toolformer":
        every, thinned = (
            [_instruction(r) for r in json.loads((data / "gpteacher" / f"toolformer_{part}.json").read_text("utf-8"))]
            for part in ("dedupe_only", "similarity_07")
        )
        kept = set(thinned)
        return Texts(every, None, [pair not in kept for pair in every])
    files = {
        "roleplay": "gpteacher/roleplay.json",
        "alpaca": "llama_factory_demo/alpaca_en_demo.json",
        "lima": "lima/lima.json",
    }
    if name in files:
        return Texts([_instruction(r) for r in json.loads((data / files[name]).read_text("utf-8"))], None, None)
    task, condition = name.split()
    learnt, _ = tasks.read(task, data=data, seed=1)
    numbered = [{**record, "origin": number} for number, record in enumerate(learnt)]
    records = list(conditions.CONDITIONS[condition](numbered, random.Random(1)))
    return Texts([(r["prompt"], r["completion"]) for r in records], [r["origin"] for r in records], None)


def _instruction(record: dict[str, Any]) -> tuple[str, str]:
    prompt = f"Below is an instruction that describes a task.\n\n{record['instruction']}\n{record['input']}\n"
    return prompt, record.get("response", record.get("output", ""))


def examined(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], policy: uds.Fresh) -> uds.Features:
    """Return the policy's features of one pool."""
    prompts, completions = (
        [tokenizer(t, add_special_tokens=False).input_ids for t in side] for side in zip(*pairs, strict=True)
    )
    whole = [(p + c)[:512] for p, c in zip(prompts, completions, strict=True)]
    time = max(map(len, whole))
    ids, labels = torch.zeros((len(whole), time), dtype=torch.int64), torch.full((len(whole), time), -100)
    mask = torch.zeros((len(whole), time), dtype=torch.bool)
    for row, (tokens, prompt) in enumerate(zip(whole, prompts, strict=True)):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), True
        start = min(max(len(prompt), 1), len(tokens) - 1)
        labels[row, start - 1 : len(tokens) - 1] = torch.tensor(tokens[start:])
    logits: Any = None
    if policy.by == "logits":
        with torch.no_grad():
            hidden = model.model(ids, attention_mask=mask.long()).last_hidden_state
        logits = uds.Head(model.lm_head.weight.detach())(hidden)
    ngrams = uds.ngram_sketch(ids, mask=mask)
    return policy.examine(uds.Candidates(logits, mask=mask, labels=labels, ngrams=ngrams))


def measure(model: Any, tokenizer: Any, name: str, by: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how many candidates are flagged, and how rightly, at each threshold."""
    known = texts(name, options.data)
    order = random.Random(0).sample(range(len(known.pairs)), len(known.pairs))[: options.items]
    policies = [uds.Fresh(by=by, keep=0.25, threshold=c, memory=4096) for c in options.thresholds]
    if by == "tokens":  # one memory does for all: the choice is made anew below
        policies = policies[:1]
    states: list[Any] = [None for _ in policies]
    flags: dict[float, list[bool]] = {c: [] for c in options.thresholds}
    truth: list[bool] = []
    seen: deque[int] = deque(maxlen=4096)
    for start in range(0, len(order) - options.pool + 1, options.pool):
        here = order[start : start + options.pool]
        features = examined(model, tokenizer, [known.pairs[i] for i in here], policies[0])
        for place, policy in enumerate(policies):
            # all are remembered, so that each candidate is compared with all records before it
            selection, states[place] = uds.Fresh(
                by=by, keep=1.0, threshold=policy.threshold, memory=policy.memory
            ).choose(states[place], features)
            if by == "tokens":
                for c in options.thresholds:
                    flags[c] += (selection.parts["similarity"] >= c).tolist()
            else:
                flags[float(policy.threshold)] += (selection.parts["near_duplicate"] > 0).tolist()
        if known.origins is not None:
            own = [known.origins[i] for i in here]
            truth += [own[j] in seen or own[j] in own[:j] for j in range(len(own))]
            seen.extend(own)
        elif known.dropped is not None:
            truth += [known.dropped[i] for i in here]
    rows = []
    for c, flagged in flags.items():
        row: dict[str, Any] = {"set": name, "by": by, "threshold": c, "records": len(flagged)}
        row["flagged"] = round(float(np.mean(flagged)), 4)
        if any(truth):
            right = np.asarray(flagged) & np.asarray(truth)
            row |= {"true": round(float(np.mean(truth)), 4)}
            row |= {"precision": round(float(right.sum() / max(1, sum(flagged))), 3)}
            row |= {"recall": round(float(right.sum() / sum(truth)), 3)}
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measure every set in both forms."""
    options = parse()
    torch.set_num_threads(1)
    folder = options.models / options.model
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = [row for by in options.by for name in options.sets for row in measure(model, tokenizer, name, by, options)]
    line = json.dumps({"model": options.model, "pool": options.pool, "rows": rows})
    print(line)
    if options.write:
        RESULTS.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
