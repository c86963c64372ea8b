"""Copies are found, near ones too, and nothing else."""

import random

from shingles import duplicates

WORDS = [f"word{i}" for i in range(500)]


def sentence(generator, words=30):
    return " ".join(generator.choice(WORDS) for _ in range(words))


def test_exact_and_near_copies():
    generator = random.Random(0)
    texts = [sentence(generator) for _ in range(200)]
    copies = [*texts, texts[7].upper() + "!", f"Please: {texts[9]}", texts[7]]
    assert duplicates(copies) == [None] * 200 + [7, 9, 7]


def test_a_common_template_does_not_make_copies():
    generator = random.Random(1)
    texts = [f"Answer this question in few words please: {sentence(generator, 20)}" for _ in range(300)]
    assert duplicates(texts) == [None] * 300


def test_short_and_empty_texts():
    assert duplicates(["", "a", "a.", "b", ""]) == [None, None, 1, None, 0]


def test_near_copies_are_rarely_missed():
    generator = random.Random(2)
    texts = [sentence(generator, 60) for _ in range(300)]
    changed = []
    for text in texts:
        words = text.split()
        words[generator.randrange(60)] = "changed"
        changed.append(" ".join(words))
    found = duplicates([*texts, *changed])[300:]
    assert sum(original == index for index, original in enumerate(found)) >= 297
