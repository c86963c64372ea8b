"""`uds show`: without weights, with and without colour, for people and for programs."""

import io
import json
import re

import pytest
from rich.console import Console
from transformers import LlamaConfig
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo.tiny_llama import build_tokenizer
from uds_adapters.lab.preview.terminal import show as in_terminal
from uds_adapters.lab.preview.values import Preview

ALPACA = [
    {"instruction": f"Say {n}.", "input": f"word {n}" if n % 2 else "", "output": f"It is {n}."} for n in range(9)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tokenizer and a configuration, and no weights."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer(["some words"], vocab=300)
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "alpaca.json"
    file.write_text(json.dumps(ALPACA, indent=1), "utf-8")
    return file


def show(model, data, *arguments, **environment):
    given = ["show", "--model", model, "--data", data, "--max-length", 128, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in given], env=environment)


def test_records_as_the_model_reads_them_and_what_carries_loss(model, data):
    result = show(model, data, "--records", 2)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[2:6] == [
        "alpaca.json:2  alpaca  17 tokens, 9 trained",
        "        │ <s>Say 0.⏎",
        "trained ┃ It is 0.</s>",
        "",
    ]
    table = [line.split(maxsplit=1) for line in lines if line[:5] in ("recor", "read ", "cut o", "near-")]
    assert table == [
        ["records", "9"],
        ["read", "as               alpaca, from instruction, input, output"],
        ["cut", "off            0  records, 0.0%, after 128 tokens"],
        ["near-duplicates", "0  records, 0.0%"],
    ]
    assert "\x1b" not in result.stdout


def printed(made, **options):
    """What a console of these options gets."""
    stream = io.BytesIO()
    encoding = options.pop("encoding", "utf-8")
    console = Console(file=io.TextIOWrapper(stream, encoding, write_through=True), width=30, **options)
    in_terminal(made, console)
    return stream.getvalue().decode(encoding)


def test_colour_on_a_terminal_unless_the_user_wants_none(model, data):
    made = Preview.of_json(json.loads(show(model, data, "--json").stdout))
    terminal = {"force_terminal": True, "color_system": "standard", "legacy_windows": False}
    assert "\x1b[1;32mtrained ┃ \x1b[0m\x1b[1;32mIt is 0.</s>" in printed(made, **terminal, _environ={})
    plain = printed(made, **terminal, _environ={"NO_COLOR": "1"})
    assert "32m" not in plain
    assert "trained ┃" in plain
    assert "trained ┃ It is 0.</s>" in printed(made).splitlines()


def test_long_lines_are_wrapped_on_a_terminal_only(model, tmp_path):
    file = tmp_path / "d.jsonl"
    file.write_text(json.dumps({"text": "word " * 40}) + "\n", "utf-8")
    made = Preview.of_json(json.loads(show(model, file, "--json", "--max-length", 999).stdout))
    words = [line for line in printed(made, force_terminal=True, color_system=None).splitlines() if "word" in line]
    assert len(words) == 5  # of forty columns, at least
    assert sum("trained" in line for line in words) == 1
    assert all("┃ " in line for line in words)
    assert sum("word" in line for line in printed(made).splitlines()) == 1


def test_without_unicode(model, data):
    made = Preview.of_json(json.loads(show(model, data, "--json").stdout))
    assert "        | <s>Say 0.\\n\ntrained # It is 0.</s>" in printed(made, encoding="ascii")


def test_one_record_by_line_or_id_whole(model, tmp_path):
    file = tmp_path / "d.jsonl"
    records = [{"id": f"r{n}", "text": f"{n} " * (600 if n == 2 else 3)} for n in range(4)]
    file.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    short = show(model, file, "--max-length", 2000)
    assert "[... " in short.stdout
    for name in ("3", "r2", "d.jsonl:3"):
        result = show(model, file, "--record", name, "--max-length", 2000)
        assert "2 " * 600 in result.stdout
        assert result.stdout.count(" trained\n") == 1
    refused = show(model, file, "--record", "r9", "--limit", 2)
    assert refused.exit_code == 2
    assert "`record` 'r9'" in refused.output
    assert "`--limit` reads more" in refused.output


def test_what_is_left_out_is_counted_and_shown_with_its_place(model, tmp_path):
    file = tmp_path / "d.jsonl"
    records = [{"text": "words"}, {"text": ""}, {"prompt": "p" * 200, "completion": "c"}, {"text": " "}]
    file.write_text("".join(json.dumps(one) + "\n" for one in records), "utf-8")
    lines = show(model, file).stdout.splitlines()
    assert "left out         2  with an empty completion: d.jsonl:2, d.jsonl:4" in lines
    assert "left out         1  whose prompt alone fills 128 tokens: d.jsonl:3" in lines
    assert "d.jsonl:2  text  left out: with an empty completion" in lines
    assert '        │ {"text": ""}' in lines


def test_a_program_reads_json(model, data):
    result = show(model, data, "--json", "--records", 1)
    made = json.loads(result.stdout)
    assert made["records"] == 9
    assert made["samples"][0]["pieces"] == [
        {"text": "<s>Say 0.\n", "trained": False},
        {"text": "It is 0.</s>", "trained": True},
    ]
    assert "It is 0." in result.stderr


def test_a_page_is_written_once(model, data, tmp_path):
    page = tmp_path / "page.html"
    assert show(model, data, "--html", page).exit_code == 0
    text = page.read_text("utf-8")
    assert "<title>Data: alpaca.json</title>" in text
    assert "<mark>It is 0.&lt;/s&gt;</mark>" in text
    assert "@@" not in text
    assert "is already there" in " ".join(show(model, data, "--html", page).output.split())
    assert show(model, data, "--html", page, "--overwrite").exit_code == 0


def test_reading_ends_with_the_limit_and_says_so(model, data, monkeypatch):
    assert re.search(r"records +4  the first of the data; --limit reads more", show(model, data, "--limit", 4).stdout)
    monkeypatch.setattr("uds_adapters.lab.show.command._BYTES", 60)
    assert "the first of the data" in show(model, data).stdout
    assert "the first of the data" not in show(model, data, "--limit", 9).stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--limit", 0, "`limit`"), ("--records", -1, "`records`"), ("--format", "x", "`format`")],
)
def test_an_invalid_option_is_refused(model, data, option, value, message):
    result = show(model, data, option, value)
    assert result.exit_code == 2
    assert message in result.output
