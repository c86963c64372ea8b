"""Answers that are written out: what is compared, and how it is generated."""

import pytest
import torch

from uds_adapters.lab.data.encoding import Collator, Encoder, pad_id
from uds_adapters.lab.data.records import Record
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.evaluation.exact_match import ExactMatch, answer


@pytest.mark.parametrize(
    ("text", "marked", "expected"),
    [
        (" blue \n", False, "blue"),
        ("two\nlines", False, "two\nlines"),
        ("He has 3 + 4 = 7.\n#### 7", True, "7"),
        ("#### 1,234,567 \nand more", True, "1234567"),
        ("####", True, ""),
        ("the answer is 7", True, ""),
        ("#### 7\n#### 8", True, "7"),
        ("#### a, b", True, "a, b"),
    ],
)
def test_what_is_compared(text, marked, expected):
    assert answer(text, marked=marked) == expected


def record(n, prompt, completion):
    return Record(where=f"d:{n}", line=n, prompt=prompt, completion=completion, raw={})


RECORDS = [record(n, f"What is {n}?", f"It is so: #### {n}") for n in range(3)]


@pytest.fixture(scope="module")
def learnt():
    """A tokenizer, and a model that has learnt to end each text with its answer."""
    tokenizer = build_tokenizer([f"What is {n}? It is so: #### {n}" for n in range(3)], vocab=300)
    model = build_model(tokenizer, seed=0, width=64, layers=2)
    examples, _ = Encoder(tokenizer=tokenizer)(RECORDS)
    batch = Collator(pad_id(tokenizer))(examples)
    del batch["index"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return tokenizer, model.eval()


def test_a_model_that_knows_is_right_and_one_that_does_not_is_wrong(learnt):
    tokenizer, model = learnt
    encoder = Encoder(tokenizer=tokenizer)
    wrong = record(3, "What is 1?", "It is so: #### 2")
    assert ExactMatch([*RECORDS, wrong], encoder=encoder, new_tokens=40)(model) == [True] * 3 + [False]
    other = build_model(tokenizer, seed=1, width=64, layers=2)
    assert ExactMatch(RECORDS, encoder=encoder, new_tokens=40)(other) == [False] * 3


def test_batches_make_no_difference(learnt):
    tokenizer, model = learnt
    records = [record(n, f"{'Well. ' * n}What is {n}?", f"It is so: #### {n}") for n in range(3)]
    found = [
        ExactMatch(records, encoder=Encoder(tokenizer=tokenizer), new_tokens=30, batch_size=size) for size in (1, 3)
    ]
    assert found[0](model) == found[1](model)


def test_too_few_tokens_and_a_full_context_are_wrong_answers(learnt):
    tokenizer, model = learnt
    one = [record(0, "What is 0?", "It is so: #### 0")]
    long = [record(0, "word " * 300, "It is so: #### 0")]
    encoder = Encoder(tokenizer=tokenizer, max_length=2000)
    assert ExactMatch(one, encoder=encoder, new_tokens=2)(model) == [False]
    assert ExactMatch(long, encoder=encoder, new_tokens=20)(model) == [False]
