"""Labels on the completion only, cut and padded."""

import json

import pytest
import torch

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Collator, Encoder, pad_id
from uds_adapters.lab.data.records import Record
from uds_adapters.lab.data.summary import Summary
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.errors import LabError


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["some words to learn from"], vocab=300)


def record(**parts):
    return Record(where="d.jsonl:1", line=1, raw={}, **parts)


def trained_text(tokenizer, example):
    return tokenizer.decode([token for token in example["labels"] if token != IGNORE])


def test_only_the_completion_and_the_end_are_labelled(tokenizer):
    (example,), _ = Encoder(tokenizer=tokenizer)([record(prompt="ask", completion="answer")])
    assert tokenizer.decode(example["input_ids"]) == "<s>ask\nanswer</s>"
    assert trained_text(tokenizer, example) == "answer</s>"
    pairs = zip(example["input_ids"], example["labels"], strict=True)
    assert all(label in (token, IGNORE) for token, label in pairs)


def test_text_alone_is_all_labelled_but_the_beginning(tokenizer):
    (example,), _ = Encoder(tokenizer=tokenizer)([record(completion="words")])
    assert trained_text(tokenizer, example) == "words</s>"
    assert example["labels"][0] == IGNORE


def test_the_template_joins(tokenizer):
    encoder = Encoder(tokenizer=tokenizer, template="Q: {prompt} A: {completion}!")
    (example,), _ = encoder([record(prompt="{x}", completion="y")])
    assert tokenizer.decode(example["input_ids"]) == "<s>Q: {x} A: y!</s>"
    (example,), _ = encoder([record(prompt="", completion="y")])
    assert tokenizer.decode(example["input_ids"]) == "<s>Q:  A: y!</s>"
    assert trained_text(tokenizer, example) == "y!</s>"
    with pytest.raises(LabError, match="`template`"):
        Encoder(tokenizer=tokenizer, template="{completion} {prompt}")


TURNS = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"})


def test_messages_without_a_chat_template(tokenizer):
    (example,), _ = Encoder(tokenizer=tokenizer)([record(messages=TURNS)])
    assert tokenizer.decode(example["input_ids"]) == "<s>user: hi\nassistant: ho</s>"
    assert trained_text(tokenizer, example) == "ho</s>"


def test_messages_through_the_chat_template():
    tokenizer = build_tokenizer(["words"], vocab=300)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    (example,), _ = Encoder(tokenizer=tokenizer)([record(messages=TURNS)])
    assert tokenizer.decode(example["input_ids"]) == "[user]hi[assistant]ho"
    assert trained_text(tokenizer, example) == "ho"
    tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(LabError, match=r"d\.jsonl:1: the tokenizer's chat template refuses .*no system turns"):
        Encoder(tokenizer=tokenizer)([record(messages=TURNS)])
    tokenizer.chat_template = "{{ messages | length }}"
    with pytest.raises(LabError, match=r"d\.jsonl:1: .*chat template"):
        Encoder(tokenizer=tokenizer)([record(messages=TURNS)])


def test_what_is_too_long_is_cut_and_what_has_no_completion_left_out(tokenizer):
    records = [record(prompt="p" * 30, completion="c"), record(prompt="p", completion="c" * 30)]
    examples, kept = Encoder(tokenizer=tokenizer, max_length=8)(records)
    assert kept == records[1:]
    assert [len(example["input_ids"]) for example in examples] == [8]
    assert [example["index"] for example in examples] == [0]
    with pytest.raises(LabError, match="`max_length`"):
        Encoder(tokenizer=tokenizer, max_length=1)


def test_the_collator_pads_on_the_right(tokenizer):
    examples = [
        {"index": 7, "input_ids": [1, 2, 3], "labels": [IGNORE, 2, 3]},
        {"index": 9, "input_ids": [4], "labels": [4]},
    ]
    batch = Collator(pad_id(tokenizer))(examples)
    pad = tokenizer.pad_token_id
    expected = {
        "input_ids": [[1, 2, 3], [4, pad, pad]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[IGNORE, 2, 3], [4, IGNORE, IGNORE]],
        "index": [7, 9],
    }
    assert {name: value.tolist() for name, value in batch.items()} == expected
    assert all(value.dtype == torch.int64 for value in batch.values())


def chat(content, **more):
    return record(messages=(TURNS[0], {"role": "assistant", "content": content, **more}))


@pytest.mark.parametrize("empty", ["", " \n", "\u200b", "\ufeff\u00ad", "\u00a0\t", "\x00"])
def test_empty_completions_are_left_out_and_counted(tokenizer, empty):
    fine = record(prompt="p", completion="c")
    given = [record(prompt="p", completion=empty), fine, record(completion=empty), chat(empty), chat("x", weight=0)]
    found = Encoder(tokenizer=tokenizer).encode(given)
    assert found.records == [fine]
    assert found.left_out == ["empty", None, "empty", "empty", "weight"]
    assert found.summary.reasons() == (
        "3 left out, with an empty completion, 1 left out, whose last message has weight 0"
    )


def test_the_reason_is_the_length_only_where_it_is(tokenizer):
    ending = build_tokenizer(["words"], vocab=300)
    ending.bos_token = ending.eos_token = None
    ending.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (first,) = [record(completion="w" * 1)]
    assert Encoder(tokenizer=ending).encode([first]).left_out == ["untrained"]
    long = record(prompt="p" * 60, completion="c")
    assert Encoder(tokenizer=tokenizer, max_length=8).encode([long]).left_out == ["long"]


def test_a_call_is_no_empty_completion(tokenizer):
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert Encoder(tokenizer=tokenizer).encode([chat("", tool_calls=[call])]).left_out == [None]


def test_what_a_tokenizer_raises_has_file_and_line():
    class Broken:
        chat_template = bos_token_id = eos_token_id = None

        def __call__(self, text, **_):
            raise KeyError(text)

    with pytest.raises(LabError, match=r"d\.jsonl:1: the tokenizer cannot encode the text: 'w'"):
        Encoder(tokenizer=Broken())([record(completion="w")])


def test_the_summary_counts_what_is_cut_and_says_where_records_were_left_out(tokenizer):
    texts = ["w" * size for size in (1, 30, 40)]
    given = [Record(where=f"d:{n}", line=n, raw={}, completion=text) for n, text in enumerate(texts, start=1)]
    empty = [Record(where=f"d:{n}", line=n, raw={}, prompt="p") for n in range(4, 9)]
    encoder = Encoder(tokenizer=tokenizer, max_length=8)
    found = encoder.encode([*given, *empty])
    whole = Encoder(tokenizer=tokenizer, max_length=1000)(given)[0]
    assert found.lengths == [len(example["input_ids"]) for example in whole]
    assert found.summary.cut == 2
    assert found.summary.places == {"empty": ("d:4", "d:5", "d:6")}
    assert "Cut off after 8 tokens (`--max-length`): the end of 2 records." in found.summary.notes()
    parts = [encoder.encode(part).summary for part in (given, empty[:2], empty[2:])]
    assert Summary.joined(parts) == found.summary
    assert Summary.joined([Summary.of_json(json.loads(json.dumps(part.as_json()))) for part in parts]) == found.summary
