"""The tasks of the study: records with a fixed prompt, in a condition, with what is wrong or repeated in them known."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]
"""prompt and completion, and `origin`: the number of the clean record; `wrong`, `copy`: what was done to it."""


class Task(NamedTuple):
    """Where records come from, and how an answer is replaced by a wrong one."""

    read: Callable[[Path], tuple[list[Record], list[Record]]]
    wrong: Callable[[Record, Sequence[Record], random.Random], str]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _gsm8k(data: Path) -> tuple[list[Record], list[Record]]:
    def records(name: str) -> list[Record]:
        rows = _lines(data / "gsm8k" / name)
        return [{"prompt": f"Question: {r['question']}\nAnswer: ", "completion": r["answer"]} for r in rows]

    return records("train.jsonl"), records("test.jsonl")


def _scienceqa(data: Path) -> tuple[list[Record], list[Record]]:
    def record(row: dict[str, Any]) -> Record:
        choices = "\n".join(f"({letter}) {choice}" for letter, choice in zip("ABCDE", row["choices"], strict=False))
        right = row["choices"][row["answer"]]
        prompt = f"Question: {row['question']}\n{choices}\nAnswer: "
        return {"prompt": prompt, "completion": f"({'ABCDE'[row['answer']]}) {right}", "choices": row["choices"]}

    train, test = (_lines(data / "scienceqa" / name) for name in ("train.jsonl", "test.jsonl"))
    return [record(row) for row in train], [record(row) for row in test]


def _another_answer(record: Record, others: Sequence[Record], rng: random.Random) -> str:
    """The answer of another question."""
    while True:
        wrong = rng.choice(others)["completion"]
        if wrong != record["completion"]:
            return wrong


def _another_choice(record: Record, others: Sequence[Record], rng: random.Random) -> str:
    """Another of the choices."""
    choices = [
        f"({letter}) {text}"
        for letter, text in zip("ABCDE", record["choices"], strict=False)
        if not record["completion"].startswith(f"({letter})")
    ]
    return rng.choice(choices) if choices else _another_answer(record, others, rng)


TASKS = {"gsm8k": Task(_gsm8k, _another_answer), "scienceqa": Task(_scienceqa, _another_choice)}


def clean(records: Sequence[Record], _task: Task, _rng: random.Random) -> Iterator[Record]:
    """As they are."""
    yield from ({**record, "origin": n} for n, record in enumerate(records))


def noisy(records: Sequence[Record], task: Task, rng: random.Random) -> Iterator[Record]:
    """30 % have a wrong answer."""
    for n, record in enumerate(records):
        if rng.random() < 0.3:
            yield {**record, "completion": task.wrong(record, records, rng), "origin": n, "wrong": True}
        else:
            yield {**record, "origin": n}


def redundant(records: Sequence[Record], _task: Task, rng: random.Random) -> Iterator[Record]:
    """A third of the records, each one to five times, as exact copies or with a few words of the prompt changed."""
    openings = ("", "Please answer. ", "Here is a task. ", "Consider this. ", "Now this one. ")
    made: list[Record] = []
    for n, record in enumerate(records[: max(1, len(records) // 3)]):
        for copy in range(rng.randint(1, 5)):
            prompt = openings[copy if rng.random() < 0.5 else 0] + record["prompt"]
            made.append({**record, "prompt": prompt, "origin": n, "copy": copy > 0})
    rng.shuffle(made)
    yield from made


def mixed(records: Sequence[Record], _task: Task, rng: random.Random) -> Iterator[Record]:
    """Lengths mixed: half of the records stand with a second one behind them, as one longer sample."""
    for n, record in enumerate(records):
        if rng.random() < 0.5:
            other = rng.choice(records)
            completion = f"{record['completion']}\n{other['prompt']}{other['completion']}"
            yield {**record, "completion": completion, "origin": n}
        else:
            yield {**record, "origin": n}


CONDITIONS = {"clean": clean, "noisy": noisy, "redundant": redundant, "mixed": mixed}


def write(
    task: str, condition: str, *, data: Path, folder: Path, train: int, heldout: int, seed: int
) -> tuple[Path, Path]:
    """JSONL files of the training records in a condition, and of the clean held-out ones; made once.

    Held-out records whose prompt also stands in the training part, up to case and spaces, are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = TASKS[task]
    learnt, measured = named.read(data)
    rng = random.Random(seed)
    learnt, measured = rng.sample(learnt, len(learnt)), rng.sample(measured, len(measured))
    seen = {_key(record) for record in learnt}
    measured = [record for record in measured if _key(record) not in seen][:heldout]
    made = list(CONDITIONS[condition](learnt[:train], named, rng))[:train]
    files = folder / f"{task}-{condition}.train.jsonl", folder / f"{task}.heldout.jsonl"
    for file, records in zip(files, (made, measured), strict=True):
        text = "".join(json.dumps({k: v for k, v in r.items() if k != "choices"}) + "\n" for r in records)
        file.write_text(text, encoding="utf-8")
    return files


def _key(record: Record) -> str:
    return hashlib.sha256(" ".join(record["prompt"].lower().split()).encode()).hexdigest()
