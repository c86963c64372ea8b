"""Templates with fields of the record."""

import pytest

from uds_adapters.lab.data.template import Template
from uds_adapters.lab.errors import LabError

RAW = {"prompt": "{input}", "input": "x", "top k": 3, "none": None, "list": [1]}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{prompt}\n{completion}", ("{input}\n", "")),
        ("{prompt} {input}: {completion}.", ("{input} x: ", ".")),
        ("{prompt}{top k}{none}={completion} {input}", ("{input}3=", " x")),
        ('{"q": "{prompt}", "a": "{completion}"}', ('{"q": "{input}", "a": "', '"}')),
        ("{{prompt}} {prompt} \\boxed{{x}}{completion}", ("{prompt} {input} \\boxed{x}", "")),
        ("{} { } {prompt}{completion}{prompt}", ("{} { } {input}", "{input}")),
    ],
)
def test_fields_are_filled_once(template, expected):
    assert Template(template).fill(RAW, prompt="{input}", where="d:1") == expected


def test_an_empty_prompt_leaves_the_template():
    assert Template("Q: {prompt}\nA: {completion}").fill({}, prompt="", where="d:1") == ("Q: \nA: ", "")


@pytest.mark.parametrize(
    "template",
    ["", "{prompt}", "{completion} {prompt}", "{{prompt}} {completion}", "{prompt}{completion}{completion}",
     "{completion}{prompt}{completion}"],
)  # fmt: skip
def test_what_is_no_template(template):
    with pytest.raises(LabError, match="`template` must hold"):
        Template(template)
    with pytest.raises(LabError, match="`template` is not UTF-8 text"):
        Template("{prompt}\udcff{completion}")


def test_fields_that_are_not_there_or_no_text():
    with pytest.raises(LabError, match=r"d:1: `template` names \{context\}, and the record has no such field, only"):
        Template("{prompt}{context}{completion}").fill(RAW, prompt="", where="d:1")
    with pytest.raises(LabError, match=r"d:1: `template` names \{list\}.*got list"):
        Template("{prompt}{list}{completion}").fill(RAW, prompt="", where="d:1")
