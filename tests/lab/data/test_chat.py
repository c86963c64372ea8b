"""Conversations through chat templates of several families: no tool call is dropped or encoded twice."""

import json

import pytest

from uds_adapters.lab.data.chat import render, unread
from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.records import Fields, record
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.errors import LabError

END = "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
HEAD = "{% for m in messages %}[{{ m.role }}]"
CALLS = {  # how a template shows calls: with arguments as an object, as text, and only where there is no content
    "object": HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.name }}"
    "{{ c.function.arguments | tojson }}>{% endfor %}" + END,
    "text": HEAD + "{{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.name }}"
    "{{ c.function.arguments }}>{% endfor %}" + END,
    "joined": HEAD + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
    "{{ '<' + c.function.name + c.function.arguments + '>' }}{% endfor %}" + END,
    "null": HEAD + "{% if m.content is defined and m.content is not none %}{{ m.content }}"
    "{% for c in m.tool_calls %}<{{ c.function.name }}{{ c.function.arguments | tojson }}>{% endfor %}{% endif %}"
    + END,
}
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
ARGUMENTS = {"town": "Oslo", "true": True, "none": None}


@pytest.fixture
def tokenizer():
    return build_tokenizer(["some words"], vocab=300)


def called(content=None, *, arguments=ARGUMENTS, tools=None, later=False):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    messages = [{"role": "user", "content": "hot?"}, {"role": "assistant", "content": content, "tool_calls": [call]}]
    if later:
        messages += [{"role": "tool", "content": "22"}, {"role": "assistant", "content": "no"}]
    return record({"messages": messages, "tools": tools}, where="d:1", number=1, fields=Fields())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("arguments", [ARGUMENTS, json.dumps(ARGUMENTS)], ids=["object", "string"])
@pytest.mark.parametrize("content", [None, ""])
def test_calls_are_json_once_in_every_kind_of_template(tokenizer, name, arguments, content):
    tokenizer.chat_template = CALLS[name]
    rendered = render(called(content, arguments=arguments), tokenizer=tokenizer)
    assert rendered.prompt == "[user]hot?[assistant]"
    inner = rendered.completion.removeprefix("<weather").removesuffix(">")
    assert json.loads(inner) == ARGUMENTS
    later = render(called(content, arguments=arguments, later=True), tokenizer=tokenizer)
    assert later.prompt == f"[user]hot?[assistant]{rendered.completion}[tool]22[assistant]"
    assert later.completion == "no"


def test_words_beside_a_call_stay(tokenizer):
    tokenizer.chat_template = CALLS["object"]
    assert render(called("I look."), tokenizer=tokenizer).completion.startswith("I look.<weather")


def test_tools_reach_the_template(tokenizer):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"town": {"type": "string"}}}}]
    tokenizer.chat_template = TOOLS + CALLS["object"]
    rendered = render(called(tools=tools), tokenizer=tokenizer)
    assert json.loads(rendered.prompt.partition("[user]")[0]) == tools
    assert rendered.completion == f"<weather{json.dumps(ARGUMENTS)}>"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("form", ["drops calls", "drops arguments", "knows no tools", "knows two roles"])
def test_calls_that_a_template_drops_are_text(tokenizer, later, form):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": dict.fromkeys(ARGUMENTS)}}]
    body = {
        "drops calls": TOOLS + HEAD + "{{ m.content }}",
        "drops arguments": TOOLS
        + HEAD
        + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}",
        "knows no tools": HEAD + "{{ m.content }}",
        "knows two roles": HEAD + "{{ {'user': 1, 'assistant': 1}[m.role] // 1 and m.content }}",
    }[form]
    tokenizer.chat_template = body + END
    summary = Encoder(tokenizer=tokenizer).encode([called(tools=tools, later=later)]).summary
    assert "In 1 record, tools and tool calls are JSON in the text of the system and of the assistant" in str(
        summary.notes()
    )
    for train_on in ("last", "all"):
        rendered = render(called(tools=tools, later=later), tokenizer=tokenizer, train_on=train_on)
        text = rendered.prompt + rendered.completion
        call = json.dumps({"name": "weather", "arguments": ARGUMENTS})
        trained = [text[span.start : span.end] for span in rendered.spans]
        (example,), _ = Encoder(tokenizer=tokenizer, train_on=train_on, max_length=4096)(
            [called(tools=tools, later=later)]
        )
        assert tokenizer.decode([label for label in example["labels"] if label != -100]) == "".join(trained)
        assert trained[-1] == ("no" if later else call)
        assert trained[0] == (call if train_on == "all" else trained[-1])
        first = json.dumps(tools) if form.startswith("drops") else f"tools: {json.dumps(tools)}"
        begin = {"knows no tools": f"[system]{first}[user]hot?", "knows two roles": f"[user]{first}\n\nhot?"}
        after = f"[{'user' if form == 'knows two roles' else 'tool'}]22[assistant]no" if later else ""
        assert text == begin.get(form, f"{first}[user]hot?") + f"[assistant]{call}{after}"


def test_without_a_template_calls_and_tools_are_lines_of_json(tokenizer):
    tools = [{"name": "weather"}]
    (example,), _ = Encoder(tokenizer=tokenizer)([called("I look.", tools=tools)])
    trained = tokenizer.decode([token for token in example["labels"] if token != -100])
    call = json.dumps({"name": "weather", "arguments": ARGUMENTS})
    assert trained == f"I look.\n{call}</s>"
    text = tokenizer.decode(example["input_ids"])
    assert text == f"<s>tools: {json.dumps(tools)}\nuser: hot?\nassistant: {trained}"


def test_a_conversation_of_the_assistant_alone(tokenizer):
    alone = record({"messages": [{"role": "assistant", "content": " ho "}]}, where="d:1", number=1, fields=Fields())
    assert render(alone, tokenizer=tokenizer)[:2] == ("assistant: ", " ho ")
    tokenizer.chat_template = HEAD + "{{ m.content | trim }}[end]" + END
    assert render(alone, tokenizer=tokenizer)[:2] == ("[assistant]", "ho[end]")


@pytest.mark.parametrize(
    "template", ["{{ messages + 1 }}", "{{ messages[9].role }}", "{% for m in 3 %}{% endfor %}", "{{ 1 // 0 }}"]
)
def test_whatever_a_template_raises_has_file_and_line(tokenizer, template):
    tokenizer.chat_template = template
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    one = record({"messages": plain}, where="d:1", number=1, fields=Fields())
    with pytest.raises(LabError, match=r"d:1: the tokenizer's chat template refuses the conversation: \w+Error: "):
        render(one, tokenizer=tokenizer)


def test_keys_that_nothing_reads_are_named(tokenizer):
    turns = [{"role": "user", "content": "hi", "name": "Ann"}, {"role": "assistant", "content": "ho", "mood": "good"}]
    one = record({"messages": turns, "tools": [{"name": "f"}]}, where="d:1", number=1, fields=Fields())
    assert unread(one, tokenizer=tokenizer) == {"name", "mood"}
    tokenizer.chat_template = HEAD + "{{ m.name }}{{ m.content }}" + END
    assert unread(one, tokenizer=tokenizer) == {"mood"}
    *_, words, note = Encoder(tokenizer=tokenizer).encode([one, one]).summary.notes()
    assert words.startswith("In 2 records, tools and tool calls are JSON")
    assert "'mood'" in note
