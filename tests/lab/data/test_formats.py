"""Formats that people have: what is read, and which tokens carry loss."""

import json

import pytest

from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.fields import Fields
from uds_adapters.lab.data.records import record
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.errors import LabError

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
CALL = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
CHAT = "user: q\nassistant: "
PAIR = "prompt-completion"
SEEN = {"from": "observation", "value": "22"}

READ = {  # name -> record, options, format, what the model reads before what it is trained on, and that
    "pair": ({"prompt": "q", "completion": "a"}, {}, PAIR, "q\n", "a"),
    "pair of messages": ({"prompt": [USER], "completion": [ASSISTANT]}, {}, PAIR, CHAT, "a"),
    "messages and an answer": ({"prompt": [USER], "completion": "a"}, {}, PAIR, CHAT, "a"),
    "alpaca": ({"instruction": "q", "input": "i", "output": "a"}, {}, "alpaca", "q\ni\n", "a"),
    "no input": ({"instruction": "q", "input": "", "output": "a"}, {}, "alpaca", "q\n", "a"),
    "a number": ({"instruction": "q", "output": 42}, {}, "alpaca", "q\n", "42"),
    "a fraction": ({"prompt": "q", "completion": 0.5}, {}, "prompt-completion", "q\n", "0.5"),
    "null input": ({"instruction": "q", "input": None, "output": "a"}, {}, "alpaca", "q\n", "a"),
    "without input": ({"instruction": "q", "output": "a"}, {}, "alpaca", "q\n", "a"),
    "gpteacher": ({"instruction": "q", "input": "i", "response": "a"}, {}, "alpaca", "q\ni\n", "a"),
    "history": (
        {"instruction": "q", "input": "i", "output": "a", "history": [["q1", "a1"], ["q2", "a2"]], "system": "s"},
        {}, "alpaca", "s\nq1\na1\nq2\na2\nq\ni\n", "a",
    ),
    "dolly": ({"instruction": "q", "context": "i", "response": "a"}, {}, "dolly", "q\ni\n", "a"),
    "sharegpt": ({"conversations": [HUMAN, GPT]}, {}, "sharegpt", CHAT, "a"),
    "sharegpt with a system": (
        {"conversations": [HUMAN, GPT, HUMAN, GPT], "system": "s"},
        {}, "sharegpt", "system: s\nuser: q\nassistant: a\nuser: q\nassistant: ", "a",
    ),
    "sharegpt with calls": (
        {"conversations": [HUMAN, CALL, SEEN, GPT], "tools": "[]"},
        {}, "sharegpt", 'user: q\nassistant: {"name": "f", "arguments": {"x": 1}}\ntool: 22\nassistant: ', "a",
    ),
    "a call at the end": (
        {"conversations": [HUMAN, CALL], "tools": '[{"name": "f"}]'},
        {}, "sharegpt", 'tools: [{"name": "f"}]\nuser: q\nassistant: ', '{"name": "f", "arguments": {"x": 1}}',
    ),
    "openai keys in conversations": ({"conversations": [USER, ASSISTANT]}, {}, "sharegpt", CHAT, "a"),
    "sharegpt keys in messages": ({"messages": [HUMAN, GPT]}, {}, "messages", CHAT, "a"),
    "the user last": ({"messages": [USER, ASSISTANT, USER]}, {}, "messages", CHAT, "a"),
    "text": ({"text": "a"}, {}, "text", "", "a"),
    "messages before text": ({"text": "t", "messages": [USER, ASSISTANT]}, {}, "messages", CHAT, "a"),
    "text by name": ({"text": "a", "messages": 3}, {"format": "text"}, "text", "", "a"),
    "fields by name": (
        {"instruction": "q", "input": "i", "output": "a"},
        {"prompt": "instruction", "completion": "output"}, PAIR, "q\n", "a",
    ),
    "columns": (
        {"question": "q", "passage": "i", "answer": "a"},
        {"prompt": "question", "context": "passage", "completion": "answer"}, PAIR, "q\ni\n", "a",
    ),
    "columns of alpaca": (
        {"question": "q", "passage": "i", "answer": "a", "input": "not this"},
        {"format": "alpaca", "prompt": "question", "context": "passage", "completion": "answer"},
        "alpaca", "q\ni\n", "a",
    ),
    "columns of messages": (
        {"dialog": [{"who": "human", "says": "q"}, {"who": "gpt", "says": "a"}]},
        {"messages": "dialog", "role": "who", "content": "says"}, "messages", CHAT, "a",
    ),
    "a choice": ({"prompt": "q", "completion": 1, "choices": ["b", "a"]}, {}, PAIR, "q\n", "a"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(["some words"], vocab=300)


def read(raw, **options):
    return record(raw, where="d:1", number=1, fields=Fields(**options))


@pytest.mark.parametrize("name", READ)
def test_what_is_read_and_what_is_trained(tokenizer, name):
    raw, options, recognised, prompt, completion = READ[name]
    (example,), (one,) = Encoder(tokenizer=tokenizer)([read(raw, **options)])
    trained = [token for token in example["labels"] if token != -100]
    before = example["input_ids"][: -len(trained)]
    assert one.format == recognised
    assert tokenizer.decode(trained) == f"{completion}</s>"
    assert tokenizer.decode(before) == f"<s>{prompt}"


def test_what_is_not_part_of_the_text_is_named_once(tokenizer):
    alpaca = {"instruction": "q", "input": "i", "output": "a", "id": 1}
    pair = {"prompt": "q", "completion": "a", "choices": ["a"], "topic": "t", "id": 2}
    found = Encoder(tokenizer=tokenizer).encode([read(alpaca), read(pair), read(pair)])
    assert found.summary.notes() == [
        "Read as alpaca (1), prompt-completion (2).",
        "Not part of the text: 'id', 'topic'.",
    ]
    (named,) = [read(alpaca, prompt="instruction", completion="output")]
    assert "Not part of the text: 'id', 'input'." in Encoder(tokenizer=tokenizer).encode([named]).summary.notes()
    template = Encoder(tokenizer=tokenizer, template="{prompt} {id}: {completion}").encode([read(alpaca)])
    assert template.summary.notes() == ["Read as alpaca."]


def test_a_template_that_names_the_context_has_it_once(tokenizer):
    raw = {"instruction": "q", "input": "i", "output": "a"}
    encoder = Encoder(tokenizer=tokenizer, template="Q: {prompt} I: {input} A: {completion}")
    assert encoder.text(read(raw)) == "Q: q I: i A: a"


@pytest.mark.parametrize(
    ("raw", "options", "said"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, {}, "preference pairs.*--completion-field chosen"),
        ({"instruction": "q", "output": {}}, {}, "'output' must be a string, got dict"),
        ({"instruction": "q", "output": None}, {}, "'output' must be a string, got NoneType"),
        ({"instruction": "q", "input": 3, "output": "a"}, {}, "'input' must be a string, got int"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, {}, "'history' must be a list of pairs"),
        (
            {"instruction": "q", "output": "a"},
            {"prompt": "question"},
            "expected the fields 'question' and 'completion'",
        ),
        ({"conversations": [HUMAN, GPT]}, {"messages": "turns"}, "the record has 'conversations'"),
        ({"conversations": [HUMAN]}, {}, "must be from the 'assistant'"),
        ({"conversations": "hi"}, {}, "'conversations' must be a list of objects"),
        ({"conversations": [{"who": "human"}]}, {}, "message 1 has 'who'"),
        ({"conversations": [HUMAN, {"from": "function_call", "value": "f()"}]}, {}, "message 2 .*a tool call must be"),
        (
            {"text": "a"},
            {"format": "sharegpt"},
            "expected the fields of `--format sharegpt`, 'conversations'; .*'text'",
        ),
        ({"text": "a"}, {"format": "messages"}, "expected the fields"),
    ],
)
def test_what_does_not_fit_is_named(raw, options, said):
    with pytest.raises(LabError, match=f"d:1: .*{said}"):
        read(raw, **options)


def test_columns_map_the_names_of_llama_factory_too():
    fields = Fields().mapped(["prompt=question", " query = passage", "response=answer", "role_tag=from"])
    assert (fields.prompt, fields.context, fields.completion, fields.role) == ("question", "passage", "answer", "from")
    for wrong in ("prompt", "prompt=", "colour=red", "format=alpaca", "=x"):
        with pytest.raises(LabError, match="`columns` must be name=field"):
            Fields().mapped([wrong])


def test_records_of_one_file_may_have_several_formats(tokenizer):
    lines = [{"text": "a"}, {"prompt": "q", "completion": "a"}, {"messages": [USER, ASSISTANT]}]
    summary = Encoder(tokenizer=tokenizer).encode([read(raw) for raw in lines]).summary
    assert summary.formats == {"text": 1, "prompt-completion": 1, "messages": 1}
    assert summary.of_json(json.loads(json.dumps(summary.as_json()))) == summary
