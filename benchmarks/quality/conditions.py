"""What is done to training records: nothing, wrong answers, repetition, mixed lengths; and the files of a task."""

import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tasks
from tasks import Record
from weak import answered

__all__ = ["CONDITIONS", "write"]

_OPENINGS = ("", "Please answer. ", "Here is a task. ", "Consider this. ", "Now this one. ")


def clean(records: Sequence[Record], _rng: random.Random) -> Iterator[Record]:
    """As they are."""
    yield from records


def noisy(records: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """30 % have a wrong answer: another choice, or the answer of another question."""
    for record in records:
        if rng.random() < 0.3:
            yield {**record, "completion": _another(record, records, rng), "wrong": True}
        else:
            yield record


def redundant(records: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """A third of the records, each one to five times, as exact copies or with a few words before the prompt."""
    made: list[Record] = []
    for record in records[: max(1, len(records) // 3)]:
        for copy in range(rng.randint(1, 5)):
            opening = _OPENINGS[copy if rng.random() < 0.5 else 0]
            made.append({**record, "prompt": opening + record["prompt"], "copy": copy > 0})
    rng.shuffle(made)
    yield from made


def mixed(records: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """Half of the records stand with a second one behind them, as one longer sample."""
    for record in records:
        if rng.random() < 0.5:
            other = rng.choice(records)
            completion = f"{record['completion']}\n{other['prompt']}{other['completion']}"
            yield {**record, "completion": completion}
        else:
            yield record


def stratified(records: Sequence[Record], rng: random.Random) -> Iterator[Record]:
    """Of a pool: as many records of each source, those of small ones several times."""
    names = sorted({record["source"] for record in records})
    queues = [itertools.cycle([record for record in records if record["source"] == name]) for name in names]
    for _ in range(0, len(records), len(queues)):
        yield from rng.sample([next(queue) for queue in queues], len(queues))


def inside(records: Sequence[Record], _rng: random.Random) -> Iterator[Record]:
    """Of a pool: the records of the wanted source alone."""
    yield from (record for record in records if record["wanted"])


CONDITIONS: dict[str, Callable[[Sequence[Record], random.Random], Iterator[Record]]] = {
    "clean": clean,
    "noisy": noisy,
    "redundant": redundant,
    "mixed": mixed,
    "stratified": stratified,
    "inside": inside,
}


def write(
    task: str,
    condition: str,
    *,
    data: Path,
    folder: Path,
    train: int,
    heldout: int,
    seed: int,
    weak: Path | None = None,
) -> tuple[Path, Path, Path]:
    """JSONL files of training records in a condition, of clean held-out ones, and of those set aside; made once.

    Each training record carries `origin`, the number of the clean record that it was made of, and what was done to it:
    `wrong`, `copy`. Set aside are records beyond those of training, a tenth of their number, in the same condition;
    none where the task has no more. `weak`: folder of the model that writes answers in the condition `weak`.
    """
    files = tuple(folder / f"{task}-{condition}.{part}.jsonl" for part in ("train", "heldout", "aside"))
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        learnt, measured = tasks.read(task, data=data, seed=seed)
        numbered = [{**record, "origin": number} for number, record in enumerate(learnt)]
        change = functools.partial(answered, model=weak) if weak and condition == "weak" else CONDITIONS[condition]
        made = [
            list(change(numbered[first : first + size], random.Random(seed)))[:size]
            for first, size in ((0, train), (train, train // 10))
        ]
        for file, records in zip(files, (made[0], measured[:heldout], made[1]), strict=True):
            file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return files[0], files[1], files[2]


def write_target(task: str, *, data: Path, folder: Path, seed: int) -> Path | None:
    """A JSONL file of examples of what a pool is wanted for; None where the task is no pool. Made once."""
    file = folder / f"{task}.target.jsonl"
    if task not in tasks.POOLS:
        return None
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        examples = tasks.target(task, data=data, seed=seed)
        file.write_text("".join(json.dumps(record) + "\n" for record in examples), encoding="utf-8")
    return file


def _another(record: Record, others: Sequence[Record], rng: random.Random) -> str:
    wrong = [choice for choice in record.get("choices", ()) if choice != record["completion"]]
    while not wrong:
        other = rng.choice(others)["completion"]
        wrong = [other] if other != record["completion"] else []
    return rng.choice(wrong)
