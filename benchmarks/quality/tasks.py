"""The tasks of the study: records with a fixed prompt, training and held-out ones apart."""

import gzip
import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shingles import duplicates

__all__ = ["POOLS", "TASKS", "Record", "read", "read_mmlu", "target"]

Record = dict[str, Any]
"""prompt and completion; of multiple choice also `choices`, of which the completion is one; in a pool its `source`
and whether that is `wanted`."""

_LETTERS = "ABCDEFGH"


def _gsm8k(data: Path) -> tuple[list[Record], list[Record]]:
    def records(name: str) -> list[Record]:
        rows = _lines(data / "gsm8k" / name)
        return [{"prompt": f"Question: {r['question']}\nAnswer: ", "completion": r["answer"]} for r in rows]

    return records("train.jsonl"), records("test.jsonl")


def _scienceqa(data: Path) -> tuple[list[Record], list[Record]]:
    train, test = (_lines(data / "scienceqa" / name) for name in ("train.jsonl", "test.jsonl"))
    return _questions(train), _questions(test)


def _arc_openbookqa(data: Path) -> tuple[list[Record], list[Record]]:
    """ARC, easy and challenge, and OpenBookQA, in the wording of LLM-Adapters, brought to one prompt."""

    def records(part: str) -> list[Record]:
        names = ("ARC-Easy", "ARC-Challenge", "openbookqa")
        files = [data / "llm_adapters_commonsense" / f"{name}.{part}.json" for name in names]
        rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
        return _questions([parsed for row in rows if (parsed := _parsed(row)) is not None])

    return records("train"), records("test")


def _mmlu(data: Path) -> tuple[list[Record], list[Record]]:
    learnt, held = read_mmlu(data)
    return _questions(learnt), _questions(held)


def _code(data: Path) -> tuple[list[Record], list[Record]]:
    """MBPP is learnt but for its test part, which is held out together with HumanEval."""
    rows = _lines(data / "mbpp" / "mbpp.jsonl")
    mbpp = [{"prompt": f"# {r['text']}\n", "completion": r["code"].replace("\r\n", "\n")} for r in rows]
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as stream:
        human = [json.loads(text) for text in stream if text.strip()]
    held = [{"prompt": row["prompt"], "completion": row["canonical_solution"]} for row in human]
    test = [11 <= row["task_id"] <= 510 for row in rows]
    learnt = [record for record, is_test in zip(mbpp, test, strict=True) if not is_test]
    return learnt, [record for record, is_test in zip(mbpp, test, strict=True) if is_test] + held


def _instructions(path: Path, answer: str) -> list[Record]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    prompts = ("\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows)
    made = [
        {"prompt": f"{prompt}\nAnswer: ", "completion": row[answer]} for prompt, row in zip(prompts, rows, strict=True)
    ]
    return [record for record in made if record["completion"].strip()]


def _toolformer(data: Path) -> tuple[list[Record], list[Record]]:
    """Instructions to use tools, written by a machine, of which nearly half repeat others as they come."""
    return _parts(_instructions(data / "gpteacher" / "toolformer_dedupe_only.json", "response"))


def _roleplay(data: Path) -> tuple[list[Record], list[Record]]:
    return _parts(_instructions(data / "gpteacher" / "roleplay.json", "response"))


def _lima(data: Path) -> tuple[list[Record], list[Record]]:
    return _parts(_instructions(data / "lima" / "lima.json", "output"))


def _parts(records: list[Record]) -> tuple[list[Record], list[Record]]:
    """Sets without a test part: every tenth record is held out."""
    return [record for n, record in enumerate(records) if n % 10], records[::10]


def _pool(wanted: str) -> Callable[[Path], tuple[list[Record], list[Record]]]:
    """All training records of five sets in one pool; held out are those of the `wanted` one."""

    def records(data: Path) -> tuple[list[Record], list[Record]]:
        learnt = {name: TASKS[name](data)[0] for name in _POOLED}
        every = [
            {**record, "source": name, "wanted": name == wanted} for name, rows in learnt.items() for record in rows
        ]
        return every, TASKS[wanted](data)[1]

    return records


_POOLED = ("gsm8k", "scienceqa", "mmlu", "roleplay", "lima")

TASKS: dict[str, Callable[[Path], tuple[list[Record], list[Record]]]] = {
    "gsm8k": _gsm8k,
    "scienceqa": _scienceqa,
    "arc_openbookqa": _arc_openbookqa,
    "mmlu": _mmlu,
    "code": _code,
    "toolformer": _toolformer,
    "roleplay": _roleplay,
    "lima": _lima,
}

POOLS = {f"pool_{name}": name for name in _POOLED}
"""Tasks on a mixed pool, and the source that they want."""

TASKS |= {pool: _pool(name) for pool, name in POOLS.items()}
_TARGETS = 100


def target(task: str, *, data: Path, seed: int) -> list[Record]:
    """Examples of what a pool is wanted for, none of which is in it; none where the task is no pool."""
    return _shuffled(task, data=data, seed=seed)[2]


def _shuffled(task: str, *, data: Path, seed: int) -> tuple[list[Record], list[Record], list[Record]]:
    learnt, measured = TASKS[task](data)
    rng = random.Random(seed)
    learnt, measured = rng.sample(learnt, len(learnt)), rng.sample(measured, len(measured))
    if task not in POOLS:
        return learnt, measured, []
    wanted = [record for record in learnt if record["wanted"]][-_TARGETS:]  # a run trains on the first ones
    taken = {id(record) for record in wanted}
    return [record for record in learnt if id(record) not in taken], measured, wanted


def read(task: str, *, data: Path, seed: int) -> tuple[list[Record], list[Record]]:
    """Training and held-out records, shuffled by `seed`; no held-out one nearly repeats another, or a learnt one."""
    learnt, measured, _ = _shuffled(task, data=data, seed=seed)
    repeated = duplicates([record["prompt"] for record in (*learnt, *measured)])[len(learnt) :]
    return learnt, [record for record, copy in zip(measured, repeated, strict=True) if copy is None]


def read_mmlu(data: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """MMLU has no training part: every fifth question of its test part is held out, the others are learnt."""
    rows = _lines(data / "mmlu" / "test.jsonl")
    return [row for n, row in enumerate(rows) if n % 5], rows[::5]


def _questions(rows: Sequence[dict[str, Any]]) -> list[Record]:
    """Multiple choice: rows with a question, choices, and the index of the answer."""
    made = []
    for row in rows:
        choices = [f"({letter}) {text}" for letter, text in zip(_LETTERS, row["choices"], strict=False)]
        prompt = "\n".join([f"Question: {row['question']}", *choices, "Answer: "])
        made.append({"prompt": prompt, "completion": choices[row["answer"]], "choices": choices})
    return made


def _parsed(row: dict[str, Any]) -> dict[str, Any] | None:
    """Question, choices and answer of one text that holds them all; None where it holds something else."""
    text = row["instruction"].removeprefix("Please choose the correct answer to the question: ")
    question, *rest = re.split(r"\s*Answer\d+: ", text.partition("\n\nAnswer format")[0])
    number = re.fullmatch(r"answer(\d+)", row["answer"])
    if number is None or not 0 < int(number[1]) <= len(rest):
        return None
    return {"question": question.strip(), "choices": rest, "answer": int(number[1]) - 1}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
