"""The page on data: what it shows of each format is what `uds show` prints."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from uds_adapters.lab.data.encoding import Encoder
from uds_adapters.lab.data.fields import FORMATS, Fields
from uds_adapters.lab.data.records import record
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.preview.preview import preview
from uds_adapters.lab.preview.terminal import show

PAGE = Path(__file__).parents[3] / "docs" / "pages" / "howto" / "data.md"
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>json|text)\n(?P<body>.*?)\n```", re.DOTALL)


def examples():
    """Return, for each record on the page, what it prints with which `--train-on`."""
    text = PAGE.read_text("utf-8").partition("## Formats of records")[2]
    found, raw = [], None
    for block in BLOCK.finditer(text):
        if block["kind"] == "json":
            raw = json.loads(block["body"])
        else:
            train_on = "all" if "With `--train-on all`" in block["before"] else "last"
            found.append((raw, train_on, block["body"].splitlines()))
    return found


def printed(raw, *, train_on):
    one = record(raw, where="d:1", number=1, fields=Fields())
    encoder = Encoder(tokenizer=build_tokenizer(["some words"], vocab=300), train_on=train_on)
    found = encoder.encode([one])
    stream = io.StringIO()
    show(preview(found.records, found.examples, found.summary, encoder=encoder), Console(file=stream, width=200))
    return one.format, [
        line.rstrip() for line in stream.getvalue().splitlines() if re.match("( {7}|trained) [│┃] ", line)
    ]


@pytest.mark.parametrize(("raw", "train_on", "lines"), examples())
def test_the_page_shows_what_is_printed(raw, train_on, lines):
    assert printed(raw, train_on=train_on)[1] == lines


def test_every_format_has_an_example():
    assert {printed(raw, train_on=train_on)[0] for raw, train_on, _ in examples()} == {*FORMATS} - {"auto"}
