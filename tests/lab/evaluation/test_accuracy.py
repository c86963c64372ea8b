"""Multiple choice by likelihood, against a loop."""

from dataclasses import replace

import pytest
import torch

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Collator, Encoder, pad_id
from uds_adapters.lab.data.records import Record
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.evaluation.accuracy import MultipleChoice

CHOICES = ("red", "a very long shade of green", "blue")
RECORDS = [
    Record(
        where=f"d:{n}", line=n, prompt=f"Which colour has {word}?", completion=CHOICES[n % 3], choices=CHOICES, raw={}
    )
    for n, word in enumerate(("the sky", "grass", "blood", "an apple", "nothing", "the sea", "sand", "a fox", "ink"))
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([f"{record.prompt}{record.completion}" for record in RECORDS], vocab=320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_model(tokenizer, seed=3, width=16, layers=1)


@pytest.fixture(scope="module")
def options(tokenizer):
    return {"encoder": Encoder(tokenizer=tokenizer), "collator": Collator(pad_id(tokenizer))}


def mean_loss(model, encoder, record):
    (example,), _ = encoder([record])
    ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
    assert (labels != IGNORE).any()
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss)


def test_the_choice_with_the_lowest_mean_loss_is_the_answer(model, options):
    expected = []
    for record in RECORDS:
        losses = [mean_loss(model, options["encoder"], replace(record, completion=choice)) for choice in CHOICES]
        expected.append(CHOICES[losses.index(min(losses))] == record.completion)
    found = MultipleChoice(RECORDS, **options)(model)
    assert found == expected
    assert 0 < sum(found) < len(found)


def test_conversations_answer_with_their_last_turn(model, options):
    turns = ({"role": "user", "content": "Which colour?"}, {"role": "assistant", "content": "red"})
    record = Record(where="d:1", line=1, messages=turns, choices=CHOICES, raw={})
    assert len(MultipleChoice([record], **options)(model)) == 1


def test_the_number_of_choices_may_differ(model, options):
    fewer = replace(RECORDS[0], choices=("red", "blue"), completion="red")
    assert len(MultipleChoice([*RECORDS, fewer], **options)(model)) == 10


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"choices": ()}, "d:0: `--metric accuracy` needs at least two choices"),
        ({"choices": ("red",)}, "needs at least two choices"),
        ({"completion": "pink"}, "'pink' is none of the choices"),
        ({"choices": ("red", "red")}, "comes twice"),
    ],
)
def test_records_that_offer_no_choice_are_named(options, changed, said):
    with pytest.raises(LabError, match=said):
        MultipleChoice([replace(RECORDS[0], **changed)], **options)


def test_an_empty_choice_without_an_end_is_refused():
    endless = build_tokenizer(["red"], vocab=300)
    endless.eos_token = None
    record = replace(RECORDS[0], choices=("red", ""))
    with pytest.raises(LabError, match="the choice '' has no token"):
        MultipleChoice(
            [record], encoder=Encoder(tokenizer=endless, template="{prompt} {completion}"), collator=Collator(0)
        )
