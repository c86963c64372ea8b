"""Previews: numbers that a plain count of the records gives, and records of each kind."""

import json
import re

import pytest

from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.fields import Fields
from uds_adapters.lab.data.records import record
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.preview.preview import preview
from uds_adapters.lab.preview.section import section
from uds_adapters.lab.preview.values import Preview

TOKENIZER = build_tokenizer(["some words to read and some to learn"], vocab=300)
NAMES = "Ann Bob Cleo Dan Eve Finn Gus Hal Ida Jan Kai Leo".split()  # noqa: SIM905


def records(raws):
    return [record(raw, where=f"d.jsonl:{n}", number=n, fields=Fields()) for n, raw in enumerate(raws, start=1)]


def made(raws, *, max_length=512, **more):
    every = records(raws)
    encoder = Encoder(tokenizer=TOKENIZER, max_length=max_length)
    found = encoder.encode(every)
    return preview(found.records, found.examples, found.summary, encoder=encoder, **more), found


def raws():
    texts = [f"{name} has {n + 17} {NAMES[n - 3]} and {n * n} of {NAMES[n - 5]}" for n, name in enumerate(NAMES)]
    return [{"prompt": f"Who is {name}?", "completion": text} for name, text in zip(NAMES, texts, strict=True)]


def test_numbers_are_those_of_a_plain_count():
    every = [*raws(), {"text": "t " * 90}, {"prompt": "q", "completion": ""}, raws()[4], {"text": " "}]
    shown, found = made(every, max_length=64)
    lengths = sorted(len(example["input_ids"]) for example in found.examples)
    assert shown.records == len(lengths) == 14
    assert shown.tokens == sum(lengths)
    assert shown.longest == lengths[-1] == 64
    assert shown.median == (lengths[6] + lengths[7]) / 2
    assert shown.trained == sum(label != -100 for example in found.examples for label in example["labels"][1:])
    assert shown.cut == 1
    assert (shown.near_duplicates, shown.equal) == (1, 1)
    assert [(one.format, one.records, one.used) for one in shown.formats] == [
        ("prompt-completion", 13, ("prompt", "completion")),
        ("text", 1, ("text",)),
    ]
    (left,) = shown.left_out
    assert (left.reason, left.records, left.places) == ("with an empty completion", 2, ("d.jsonl:14", "d.jsonl:16"))


def test_a_record_of_each_kind_is_shown():
    every = [*raws(), {"text": "t " * 90}, raws()[4]]
    shown, _ = made(every, max_length=64, number=3)
    assert [one.place for one in shown.samples] == ["d.jsonl:1", "d.jsonl:13", "d.jsonl:14"]
    assert shown.samples[1].cut > 0
    assert shown.samples[2].repeats == "d.jsonl:5"
    assert shown.samples[2].similarity == 1.0


@pytest.mark.parametrize("number", [0, 1, 5, 12, 40])
def test_as_many_records_as_asked_for_or_all(number):
    shown, _ = made(raws(), number=number)
    places = [one.place for one in shown.samples]
    assert len(places) == len(set(places)) == min(number, 12)


def test_nothing_to_train_on():
    shown, _ = made([{"text": " "}])
    assert (shown.records, shown.tokens, shown.samples) == (0, 0, ())
    assert "with an empty completion" in section(shown)


def test_json_and_back():
    shown, _ = made([*raws(), raws()[0], {"text": " "}])
    assert Preview.of_json(json.loads(json.dumps(shown.as_json()))) == shown


def test_html_holds_all_text_escaped_and_marks_what_carries_loss():
    shown, _ = made([{"prompt": "<script>&", "completion": "<b>\x00"}])
    page = section(shown)
    assert "<script>" not in page
    text = page.split("<pre>")[1].split("</pre>")[0]
    assert text == "&lt;s&gt;&lt;script&gt;&amp;\n<mark>&lt;b&gt;\\x00&lt;/s&gt;</mark>"
    assert not re.search(r"https?://|src=|url\(", page)


def test_a_chat_template_that_is_not_used_is_named():
    chatting = build_tokenizer(["words"], vocab=300)
    chatting.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    notes = {}
    for kind, tokenizer in (("chat", chatting), ("plain", TOKENIZER)):
        for name, raws in (("talk", [talk]), ("both", [talk, {"prompt": "q", "completion": "a"}])):
            encoder = Encoder(tokenizer=tokenizer)
            found = encoder.encode(records(raws))
            notes[kind, name] = preview(found.records, found.examples, found.summary, encoder=encoder).notes
    assert notes["chat", "talk"] == notes["plain", "talk"] == notes["plain", "both"] == ()
    (note,) = notes["chat", "both"]
    assert "only conversations go through it" in note
