"""`uds compare` on a file as people have it, with no option but the model and the data."""

import json

import pytest
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo.tiny_llama import build_model, build_tokenizer

pytestmark = pytest.mark.slow

WORDS = "red green blue tall small old new warm cold".split()  # noqa: SIM905


def test_an_array_of_alpaca_records_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [
        {"instruction": f"Join {n}.", "input": WORDS[n % 9] if n % 2 else "", "output": f"{WORDS[n % 7]} {n}", "id": n}
        for n in range(80)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(records, indent=2), "utf-8")
    tokenizer = build_tokenizer([f"{one['instruction']} {one['output']}" for one in records], vocab=320)
    tokenizer.save_pretrained(tmp_path / "model")
    build_model(tokenizer, seed=0, width=16, layers=1).save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["compare", "--data", "alpaca.json", "--model", "model"])
    assert result.exit_code == 0, result.output
    assert "72 training examples, 8 held out" in result.output
    assert "Read as alpaca. Not part of the text: the field 'id'." in " ".join(result.output.split())
    found = json.loads((tmp_path / "uds-compare" / "results.json").read_text("utf-8"))
    assert {row["policy"] for row in found["summary"]} == {"full", "random", "fresh", "uds"}
    shown = found["preview"]
    assert shown["formats"] == [{"format": "alpaca", "records": 72, "used": ["instruction", "input", "output"]}]
    by_line = {f"alpaca.json:{6 * n + 2}": one for n, one in enumerate(records)}
    for sample in shown["samples"]:
        one = by_line[sample["place"]]
        prompt = "".join(f"{text}\n" for text in (one["instruction"], one["input"]) if text)
        assert sample["pieces"] == [
            {"text": f"<s>{prompt}", "trained": False},
            {"text": f"{one['output']}</s>", "trained": True},
        ]
    page = (tmp_path / "uds-compare" / "report.html").read_text("utf-8")
    assert "What the model reads, and what is trained on" in page
