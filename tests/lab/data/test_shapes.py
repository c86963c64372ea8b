"""Every shape of data that people have, as a file: the tokens that carry loss are those of the answer."""

import gzip
import json

import pytest

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.records import read
from uds_adapters.lab.demo.tiny_llama import build_tokenizer

TEMPLATE = (
    "{% if tools %}[tools]{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}"
    "{% endfor %}[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
COUNT = 5
PAIRS = [{"prompt": f"Name a fruit, number {i}.", "completion": f"Fruit {i} is a red apple."} for i in range(COUNT)]
FRUITS = [pair["completion"] for pair in PAIRS]
LINES = "".join(json.dumps(pair) + "\n" for pair in PAIRS).encode()
ALPACA = [
    {"instruction": f"Say {i}.", "input": f"word {i}" if i % 2 else "", "output": f"It is {i}."} for i in range(COUNT)
]
SAID = [one["output"] for one in ALPACA]
MARK = b"\xef\xbb\xbf"
SYSTEM, HUMAN = {"role": "system", "content": "s"}, {"from": "human", "value": "hi"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def user(text, **more):
    return {"role": "user", "content": text, **more}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(arguments):
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}


def jsonl(make):
    return "".join(json.dumps(make(i)) + "\n" for i in range(COUNT)).encode()


def chat(make, **more):
    return jsonl(lambda i: {"messages": make(i), **more})


def called(i):
    return json.dumps({"name": "f", "arguments": {"a": i}})


def each(text):
    return [text.format(i) for i in range(COUNT)]


PLAIN = {  # file -> content, and what is trained on in each record; prompts go through no chat template
    "good.jsonl": (LINES, FRUITS),
    "without a suffix": (LINES, FRUITS),
    "bom.jsonl": (MARK + LINES, FRUITS),
    "joined files with marks.jsonl": (2 * (MARK + LINES), 2 * FRUITS),
    "crlf.jsonl": (LINES.replace(b"\n", b"\r\n"), FRUITS),
    "cr.jsonl": (LINES.replace(b"\n", b"\r"), FRUITS),
    "no last end.jsonl": (LINES.rstrip(), FRUITS),
    "blank lines.jsonl": (b"\n \n" + LINES.replace(b"\n", b"\n\n"), FRUITS),
    "good.jsonl.gz": (gzip.compress(LINES), FRUITS),
    "sp ace [v1].jsonl": (LINES, FRUITS),
    "lines.json": (LINES, FRUITS),
    "alpaca.json": (json.dumps(ALPACA, indent=2).encode(), SAID),
    "alpaca in one line.json": (json.dumps(ALPACA).encode(), SAID),
    "alpaca.json.gz": (gzip.compress(json.dumps(ALPACA).encode()), SAID),
    "alpaca.jsonl": (jsonl(lambda i: ALPACA[i]), SAID),
    "dolly.jsonl": (
        jsonl(lambda i: {"instruction": "Who?", "context": "A king.", "response": f"King {i}", "category": "qa"}),
        each("King {}"),
    ),
    "csv.csv": ("prompt,completion\n" + "".join(f'q{i},"a, {i}"\n' for i in range(COUNT)), each("a, {}")),
    "tsv.tsv": ("prompt\tcompletion\n" + "".join(f"q{i}\ta{i}\n" for i in range(COUNT)), each("a{}")),
    "text.jsonl": (jsonl(lambda i: {"text": f"all of {i}"}), each("all of {}")),
    "not finite.jsonl": (jsonl(lambda i: {**PAIRS[i], "score": float("nan"), "other": float("-inf")}), FRUITS),
    "a key twice.jsonl": (b'{"prompt":"a","completion":"first","completion":"second"}\n' * COUNT, ["second"] * COUNT),
    "half of a pair.jsonl": (b'{"prompt": "cut \\ud83d", "completion": "yes \\ud83d"}\n', ["yes \ufffd"]),
    "some are empty.jsonl": (LINES + b'{"prompt":"p","completion":"  "}\n' + LINES, 2 * FRUITS),
    "no prompt.jsonl": (jsonl(lambda i: {"prompt": "", "completion": f"answer {i}"}), each("answer {}")),
    "no width.jsonl": (
        jsonl(lambda i: {"prompt": "x\u200b\u202e", "completion": f"\U0001f468\u200d\U0001f469 {i}\x00"}),
        each("\U0001f468\u200d\U0001f469 {}\x00"),
    ),
}
CHATS = {
    "messages.jsonl": (chat(lambda i: [user("hi"), answer(f"ho {i}")]), each("ho {}")),
    "several turns.jsonl": (
        chat(lambda i: [SYSTEM, user("1"), answer("first"), user("2"), answer(f"second {i}")]),
        each("second {}"),
    ),
    "ends with the user.jsonl": (chat(lambda i: [user("hi"), answer(f"ho {i}"), user("bye")]), each("ho {}")),
    "parts.jsonl": (
        chat(lambda i: [user([{"type": "text", "text": "hi"}]), answer([{"type": "text", "text": f"ho {i}"}])]),
        each("ho {}"),
    ),
    "null calls.jsonl": (
        chat(lambda i: [user("hi", tool_calls=None), answer(f"ho {i}", tool_calls=None, function_call=None)]),
        each("ho {}"),
    ),
    "arguments as text.jsonl": (
        chat(lambda i: [user("w"), answer("", tool_calls=[call(json.dumps({"a": i}))])], tools=TOOLS),
        [called(i) for i in range(COUNT)],
    ),
    "arguments as an object.jsonl": (
        chat(lambda i: [user("w"), answer(None, tool_calls=[call({"a": i})])], tools=TOOLS),
        [called(i) for i in range(COUNT)],
    ),
    "an answer of a tool.jsonl": (
        chat(
            lambda i: [
                user("w"), answer("calling", tool_calls=[call({"a": i})]),
                {"role": "tool", "content": "22", "tool_call_id": "1"}, answer(f"it is {i}"),
            ],
            tools=TOOLS,
        ),
        each("it is {}"),
    ),
    "sharegpt.jsonl": (
        jsonl(lambda i: {"id": "x", "conversations": [HUMAN, {"from": "gpt", "value": f"ho {i}"}]}),
        each("ho {}"),
    ),
    "sharegpt with a call.json": (
        json.dumps(
            [
                {
                    "conversations": [HUMAN, {"from": "function_call", "value": called(i)}],
                    "tools": json.dumps(TOOLS),
                }
                for i in range(COUNT)
            ]
        ).encode(),
        [called(i) for i in range(COUNT)],
    ),
    "lists of messages.jsonl": (
        jsonl(lambda i: {"prompt": [user("q")], "completion": [answer(f"a {i}")]}),
        each("a {}"),
    ),
    "a prompt beside messages.jsonl": (
        jsonl(lambda i: {"prompt": "p", "messages": [user("u"), answer(f"a {i}")], "text": "t"}),
        each("a {}"),
    ),
    "thinking.jsonl": (
        chat(lambda i: [user("2 + 2"), answer(f"<think>\nadd\n</think>\n\n{i}")]),
        each("<think>\nadd\n</think>\n\n{}"),
    ),
    "only the assistant.jsonl": (chat(lambda i: [answer(f"{i} it is")]), each("{} it is")),
    "spaces around.jsonl": (chat(lambda i: [user("hi"), answer(f"  padded {i} \n")]), each("  padded {} \n")),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers():
    """One without a chat template, and one with."""
    plain, chatting = build_tokenizer(["some words"], vocab=300), build_tokenizer(["some words"], vocab=300)
    chatting.chat_template = TEMPLATE
    return {"plain": plain, "chat": chatting}


def trained(path, tokenizer):
    """Return the text of the tokens that carry loss, of each record that is not left out."""
    examples, _ = Encoder(tokenizer=tokenizer)(read(path))
    return [tokenizer.decode([label for label in example["labels"] if label != IGNORE]) for example in examples]


def written(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize("kind", ["plain", "chat"])
@pytest.mark.parametrize("name", PLAIN)
def test_of_prompts_and_texts_the_answer_and_the_end_carry_loss(name, kind, tokenizers, tmp_path):
    content, answers = PLAIN[name]
    assert trained(written(tmp_path, name, content), tokenizers[kind]) == [f"{text}</s>" for text in answers]


@pytest.mark.parametrize(("kind", "end"), [("plain", "</s>"), ("chat", "[end]")])
@pytest.mark.parametrize("name", CHATS)
def test_of_conversations_the_last_answer_and_its_end_carry_loss(name, kind, end, tokenizers, tmp_path):
    content, answers = CHATS[name]
    assert trained(written(tmp_path, name, content), tokenizers[kind]) == [f"{text}{end}" for text in answers]


@pytest.mark.parametrize("kind", ["folder", "pattern"])
def test_shards_are_read_in_order(kind, tokenizers, tmp_path):
    for number, line in enumerate(LINES.splitlines()):
        written(tmp_path, f"{number}.jsonl", line)
    path = tmp_path if kind == "folder" else tmp_path / "[0-9].jsonl"
    assert trained(path, tokenizers["plain"]) == [f"{text}</s>" for text in FRUITS]


def test_tables(tokenizers, tmp_path):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(PAIRS), tmp_path / "pairs.parquet")
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(tmp_path / "saved"))
    for name in ("pairs.parquet", "saved"):
        assert trained(tmp_path / name, tokenizers["plain"]) == [f"{text}</s>" for text in FRUITS]
