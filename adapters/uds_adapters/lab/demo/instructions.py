"""Data of the demo: short instructions with known answers, some repeated, some wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

__all__ = ["FLAWS", "Instruction", "instructions", "plain_text", "write"]

FLAWS = ("wrong", "repeated")

_UNITS = (
    ("km", "m", 1000),
    ("m", "cm", 100),
    ("kg", "g", 1000),
    ("h", "min", 60),
    ("min", "s", 60),
    ("weeks", "days", 7),
)
_WORDS = tuple(
    """
    apple bread candle dragon engine flower garden hammer island jacket kettle lemon market needle orange pencil queen
    river silver table umbrella violin window yellow zebra anchor basket copper desert feather guitar harbor insect
    jungle ladder mirror north ocean planet rabbit school tiger valley winter bottle cotton dinner eagle forest
    """.split()  # noqa: SIM905 - fifty quotes less
)
_POLITE = ("Please: {}", "{} Thank you.", "Question: {}", "{} Answer briefly.")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One prompt with its completion, and what is known about it."""

    prompt: str
    completion: str
    kind: str
    """``arithmetic``, ``units`` or ``strings``."""
    wrong: bool = False
    """The completion is that of another instruction of this kind."""
    repeated: bool = False
    """A near-duplicate of an instruction that is in the set as well, in slightly other words."""


def instructions(
    number: int, /, *, seed: int, repeated: float = 0.0, wrong: float = 0.0, without: Iterable[Instruction] = ()
) -> list[Instruction]:
    """Seeded instructions, shuffled; shares `repeated` and `wrong` of them are near-duplicates and have wrong answers.

    No instruction is both. All but the near-duplicates have distinct prompts, none of them a prompt of `without`.
    """
    generator = random.Random(seed)
    copies, mistakes = round(repeated * number), round(wrong * number)
    originals = _distinct(number - copies, generator, {item.prompt for item in without})
    sound = originals[mistakes:]
    made = [
        *(_with_wrong_answer(item, originals, generator) for item in originals[:mistakes]),
        *sound,
        *(_reworded(generator.choice(sound), generator) for _ in range(copies)),
    ]
    generator.shuffle(made)
    return made


def plain_text(number: int, /, *, seed: int) -> list[str]:
    """Sentences that state the same kind of facts without instructing: what the demo's model is pretrained on."""
    generator = random.Random(seed)
    return [" ".join(_statement(generator) for _ in range(3)) for _ in range(number)]


def write(items: Iterable[Instruction], path: Path, /) -> None:
    """JSONL, one instruction a line."""
    path.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items), encoding="utf-8")


def _distinct(number: int, generator: random.Random, taken: set[str]) -> list[Instruction]:
    found: dict[str, Instruction] = {}
    while len(found) < number:
        item = generator.choice(_KINDS)(generator)
        if item.prompt not in taken:
            found.setdefault(item.prompt, item)
    return list(found.values())


def _with_wrong_answer(item: Instruction, others: list[Instruction], generator: random.Random) -> Instruction:
    answers = [other.completion for other in others if other.kind == item.kind and other.completion != item.completion]
    return replace(item, completion=generator.choice(answers), wrong=True)


def _reworded(item: Instruction, generator: random.Random) -> Instruction:
    return replace(item, prompt=generator.choice(_POLITE).format(item.prompt), repeated=True)


def _arithmetic(generator: random.Random) -> Instruction:
    a, b = generator.randint(2, 99), generator.randint(2, 99)
    a, b = max(a, b), min(a, b)
    prompt, answer = generator.choice(
        (
            (f"Add {a} and {b}.", f"{a} + {b} = {a + b}"),
            (f"Subtract {b} from {a}.", f"{a} - {b} = {a - b}"),
            (f"Which is larger, {b} or {a}?", f"{a} is larger."),
            (f"Is {a} even or odd?", f"{a} is {'odd' if a % 2 else 'even'}."),
        )
    )
    return Instruction(prompt=prompt, completion=answer, kind="arithmetic")


def _units(generator: random.Random) -> Instruction:
    large, small, factor = generator.choice(_UNITS)
    amount = generator.randint(2, 60)
    if generator.random() < 0.5:
        prompt, answer = f"Convert {amount} {large} to {small}.", f"{amount} {large} are {amount * factor} {small}."
    else:
        prompt, answer = (
            f"Convert {amount * factor} {small} to {large}.",
            f"{amount * factor} {small} are {amount} {large}.",
        )
    return Instruction(prompt=prompt, completion=answer, kind="units")


def _strings(generator: random.Random) -> Instruction:
    first, second, third = generator.sample(_WORDS, 3)
    prompt, answer = generator.choice(
        (
            (f"Write {first} in capitals.", first.upper()),
            (f"Spell {first}.", "-".join(first)),
            (f"Write {first} backwards.", first[::-1]),
            (f"Swap the words: {first} {second}", f"{second} {first}"),
            (f"Sort the words: {first} {second} {third}", " ".join(sorted((first, second, third)))),
            (f"Join with commas: {first} {second} {third}", f"{first}, {second}, {third}"),
        )
    )
    return Instruction(prompt=prompt, completion=answer, kind="strings")


_KINDS: tuple[Callable[[random.Random], Instruction], ...] = (_arithmetic, _units, _strings)


def _statement(generator: random.Random) -> str:
    a, b = generator.randint(2, 99), generator.randint(2, 99)
    large, small, factor = generator.choice(_UNITS)
    first, second = generator.sample(_WORDS, 2)
    return generator.choice(
        (
            f"{a} + {b} = {a + b}",
            f"{max(a, b)} - {min(a, b)} = {abs(a - b)}",
            f"{a} {large} are {a * factor} {small}.",
            f"{first} is spelt {'-'.join(first)}.",
            f"{first.upper()} means {first}.",
            f"First came {first}, then {second}.",
        )
    )
