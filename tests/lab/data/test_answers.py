"""The tokens that carry loss are the answers: the last or all, in chat templates of several families."""

import functools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uds_adapters.batches import IGNORE
from uds_adapters.lab.data.answers import Span
from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.records import Fields, record
from uds_adapters.lab.data.tokens import Piece, tokenize
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.errors import LabError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# as R1's: thinking is cut out of all answers, and the generation prompt begins one
THINKS_FIRST = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content.split('</think>')[-1] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
# as Qwen3's: thinking stays in the answers after the last question
CUTS_EARLIER = (
    "{% set ns = namespace(last=0) %}{% for m in messages if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endfor %}{% set ns.asked = 0 %}{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'user' %}{% set ns.asked = ns.asked + 1 %}{% endif %}"
    "{{ m.content if ns.asked > ns.last else m.content.split('</think>')[-1].lstrip() }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TURNS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "and two?"},
    {"role": "assistant", "content": "second answer"},
]
THOUGHT = [
    {"role": "user", "content": "2+2"},
    {"role": "assistant", "content": "<think>\nadd\n</think>\n\nfour"},
    {"role": "user", "content": "2+3"},
    {"role": "assistant", "content": "<think>\nmore\n</think>\n\nfive"},
]


build = functools.cache(lambda: build_tokenizer(["some words to answer first and second"], vocab=300))


@pytest.fixture
def tokenizer():
    yield build()
    build().chat_template = None


def read(messages=None, **raw):
    given = raw if messages is None else {"messages": messages, **raw}
    return record(given, where="d:1", number=1, fields=Fields())


def runs(tokenizer: Any, example: Any) -> list[str]:
    """The texts that carry loss, one for each run of tokens."""
    found, before = [], IGNORE
    for label in example["labels"]:
        if label != IGNORE:
            found = [*found, []] if before == IGNORE else found
            found[-1].append(label)
        before = label
    return [tokenizer.decode(ids) for ids in found]


def trained(tokenizer, one, train_on, **options):
    (example,), _ = Encoder(tokenizer=tokenizer, train_on=train_on, **options)([one])
    return runs(tokenizer, example)


@pytest.mark.parametrize(
    ("template", "end"), [(CHATML, "<|im_end|>\n"), (MARKED, "<|im_end|>")], ids=["prefixes", "marks"]
)
def test_all_answers_with_their_ends_carry_loss(tokenizer, template, end):
    tokenizer.chat_template = template
    assert trained(tokenizer, read(TURNS), "all") == [f"first answer{end}", f"second answer{end}"]
    assert trained(tokenizer, read(TURNS), "last") == ["second answer<|im_end|>\n"]


def test_without_a_template_all_answers_carry_loss_and_the_end_of_the_text(tokenizer):
    # the space before the first answer is one token with its first word
    assert trained(tokenizer, read(TURNS), "all") == [" first answer", "second answer</s>"]
    assert trained(tokenizer, read(TURNS), "last") == ["second answer</s>"]


@pytest.mark.parametrize("template", [None, CHATML, MARKED], ids=["none", "prefixes", "marks"])
def test_answers_of_weight_0_and_empty_ones_carry_none(tokenizer, template):
    tokenizer.chat_template = template
    first, second = ([*TURNS[:place], {**TURNS[place], "weight": 0}, *TURNS[place + 1 :]] for place in (2, 4))
    (text,) = trained(tokenizer, read(first), "all")
    assert text.startswith("second answer")
    (text,) = trained(tokenizer, read(second), "all")
    assert text.strip().startswith("first answer")
    assert Encoder(tokenizer=tokenizer).encode([read(second)]).left_out == ["weight"]
    neither = [{**turn, "weight": 0} for turn in TURNS]
    empty = [{**turn, "content": " "} if turn["role"] == "assistant" else turn for turn in TURNS]
    found = Encoder(tokenizer=tokenizer, train_on="all").encode([read(neither), read(empty)])
    assert found.left_out == ["weights", "empty"]
    assert "1 left out, whose answers all have weight 0" in found.summary.reasons()


def test_where_the_generation_prompt_begins_a_thought_the_answer_starts_where_they_differ(tokenizer):
    tokenizer.chat_template = THINKS_FIRST
    assert trained(tokenizer, read(TURNS), "last") == ["second answer<end>"]
    assert trained(tokenizer, read(TURNS), "all") == ["first answer<end>", "second answer<end>"]
    assert trained(tokenizer, read(THOUGHT), "all") == ["\n\nfour<end>", "\n\nfive<end>"]
    notes = Encoder(tokenizer=tokenizer).encode([read(THOUGHT)] * 2).summary.notes()
    assert "In 2 records, the tokenizer's chat template leaves thinking out of answers that are trained on." in notes


def test_thinking_that_a_template_cuts_out_of_earlier_answers_is_not_trained_on(tokenizer):
    tokenizer.chat_template = CUTS_EARLIER
    last = "<think>\nmore\n</think>\n\nfive<end>"
    assert trained(tokenizer, read(THOUGHT), "last") == [last]
    assert trained(tokenizer, read(THOUGHT), "all") == ["four<end>", last]
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    turns = [
        THOUGHT[0],
        {"role": "assistant", "content": "<think>\nlook\n</think>\n\nI look", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        *THOUGHT[1:],
    ]
    tokenizer.chat_template = CUTS_EARLIER.replace(
        "<end>", "{% for c in m.tool_calls or [] %}<{{ c | tojson }}>{% endfor %}<end>"
    )
    found = trained(tokenizer, read(turns), "all")
    assert found[1:] == ["four<end>", last]
    assert found[0].startswith("I look<")
    assert json.loads(found[0].removeprefix("I look<").removesuffix("><end>")) == call


@pytest.mark.parametrize("name", ["qwen3_chat_template", "deepseek_r1_distill_chat_template"])
def test_templates_that_trl_knows_keep_thinking_as_in_trl(tokenizer, name):
    known = pytest.importorskip("trl.chat_template_utils", reason="this TRL has no templates for training")
    tokenizer.chat_template = getattr(known, name, None)
    if tokenizer.chat_template is None:
        pytest.skip(f"this TRL has no {name}")
    first, second = trained(tokenizer, read(THOUGHT), "all")
    assert "add\n</think>\n\nfour<" in first
    assert "more\n</think>\n\nfive<" in second
    (last,) = trained(tokenizer, read(THOUGHT), "last")
    assert "more\n</think>\n\nfive<" in last
    assert Encoder(tokenizer=tokenizer).encode([read(THOUGHT)]).summary.unthought == 0
    (example,), _ = Encoder(tokenizer=tokenizer, train_on="all")([read(THOUGHT)])
    theirs = tokenizer.apply_chat_template(
        THOUGHT,
        chat_template=known.get_training_chat_template(tokenizer),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert example["input_ids"] == theirs["input_ids"]
    mask = theirs["assistant_masks"]
    assert example["labels"] == [token if m else IGNORE for token, m in zip(theirs["input_ids"], mask, strict=True)]


def test_a_template_that_reads_content_in_parts_gets_parts(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{% for part in m.content if part.type == 'text' %}{{ part.text }}"
        "{% endfor %}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert trained(tokenizer, read(TURNS), "all") == ["first answer<end>", "second answer<end>"]


def test_a_template_that_shows_no_word_of_an_answer_is_refused(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{% endfor %}"
    with pytest.raises(LabError, match=r"d:1: .*chat template does not show the words of an answer"):
        trained(tokenizer, read(TURNS), "last")


def test_earlier_turns_of_alpaca_carry_loss_with_all(tokenizer):
    alpaca = read(
        instruction="and two?", input="2", output="second answer", system="be kind", history=[["one?", "first answer"]]
    )
    (example,), _ = Encoder(tokenizer=tokenizer, train_on="all")([alpaca])
    assert tokenizer.decode(example["input_ids"]) == "<s>be kind\none?\nfirst answer\nand two?\n2\nsecond answer</s>"
    assert runs(tokenizer, example) == ["first answer", "second answer</s>"]
    assert trained(tokenizer, alpaca, "last") == ["second answer</s>"]
    template = "first answer {prompt}: {completion}."
    assert trained(tokenizer, alpaca, "all", template=template) == ["first answer", "second answer.</s>"]


word = st.text(st.sampled_from("ab \n<>/|é中"), min_size=1, max_size=8).map(lambda text: f"w{text}w")


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(word, word, st.sampled_from([0, 1, None])), min_size=1, max_size=4),
    template=st.sampled_from([None, CHATML, CUTS_EARLIER]),
)
def test_all_reads_the_same_tokens_as_last_and_adds_labels(pairs, template):
    tokenizer = build()
    tokenizer.chat_template = template
    turns = []
    for asked, answer, weight in pairs:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, "weight": weight}]
    turns[-1]["weight"] = 1
    (last,), _ = Encoder(tokenizer=tokenizer)([read(turns)])
    (every,), _ = Encoder(tokenizer=tokenizer, train_on="all")([read(turns)])
    assert every["input_ids"] == last["input_ids"]
    assert all(label in (IGNORE, token) for token, label in zip(every["input_ids"], every["labels"], strict=True))
    assert all(a in (IGNORE, b) for a, b in zip(last["labels"], every["labels"], strict=True))
    text = "".join(runs(tokenizer, every))
    for _, answer, weight in pairs[:-1]:
        if weight != 0:
            assert answer in text
            text = text.partition(answer)[2]
    assert pairs[-1][1] in text


def test_a_tokenizer_that_does_not_say_where_tokens_stand_reads_spans_by_themselves():
    class Letters:
        def __call__(self, text, **_):
            return {"input_ids": [[*map(ord, one)] for one in text]}

    (found,) = tokenize([Piece("ask ho ask hi.", [Span(4, 6), Span(11, 14)], "d:1")], tokenizer=Letters())
    assert "".join(map(chr, found.ids)) == "ask ho ask hi."
    assert "".join(chr(label) if label != IGNORE else "_" for label in found.labels) == "____ho_____hi."


@pytest.mark.parametrize("train_on", ["first", "", "Last"])
def test_other_words_are_refused(tokenizer, train_on):
    with pytest.raises(LabError, match=f"`train_on` must be last or all, got '{train_on}'"):
        Encoder(tokenizer=tokenizer, train_on=train_on)
