"""The command as a user types it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from uds_adapters.lab import demo
from uds_adapters.lab.cli import app

QUICK = ["--steps", "2", "--batch-size", "8", "--eval-every", "1"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = demo.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return demo.make(tmp_path_factory.mktemp("cli"), sizes=sizes, seed=0)


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text):
    return " ".join(text.replace("\u2502", " ").split())


def refused(*arguments):
    """What the user reads, when it is an error: one paragraph, no traceback."""
    result = uds(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return words(result.output)


def test_help_is_there_and_imports_nothing_heavy():
    code = "import sys, uds_adapters.lab.cli; print({'torch', 'transformers', 'plotly'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    for command in ("demo", "compare", "train"):
        assert command in uds("--help").output
        assert uds(command, "--help").exit_code == 0
    assert "CANDIDATES a step" in words(uds("compare", "--help").output)


def test_compare(source, tmp_path):
    output = tmp_path / "out"
    options = ["--model", source.model, "--data", source.data, "--policy", "random", "--policy", "uds", "--seeds", 2]
    result = uds("compare", *options, *QUICK, "--holdout", "0.2", "--output", output)
    assert result.exit_code == 0, result.output
    assert "32 training examples, 8 held out." in result.output
    assert "reached the lowest held-out loss" in words(result.output)
    assert f"Report: {output / 'report.html'}" in result.output
    assert "\u2026" not in result.output  # the table fits into 80 columns
    runs = json.loads((output / "results.json").read_text(encoding="utf-8"))["runs"]
    assert [(run["policy"], run["seed"]) for run in runs] == [("random", 0), ("uds", 0), ("random", 1), ("uds", 1)]
    assert "already holds files" in refused("compare", *options, *QUICK, "--output", output)
    assert uds("compare", *options, *QUICK, "--output", output, "--overwrite").exit_code == 0


def test_train_saves_a_model_that_loads(source, tmp_path):
    options = ["--model", source.model, "--data", source.data, *QUICK, "--keep", "0.5"]
    result = uds("train", *options, "--holdout", "0", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"The model and the tokenizer are in {tmp_path / 'out'}" in result.output
    again = uds(
        "train", *options, "--model", tmp_path / "out", "--policy", "full", "--output", tmp_path / "again", "--lora"
    )
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "adapter_model.safetensors").is_file()
    (run,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["runs"]
    assert [len(step) for step in run["selected"]] == [4, 4]


def test_demo(tmp_path):
    options = ["--steps", 2, "--records", 60, "--pretraining-steps", 2, "--seeds", 1]
    result = uds("demo", *options, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith("report.html")
    assert "wrong %" in result.output
    for name in ("results.json", "report.html", "train.jsonl", "heldout.jsonl", "model/config.json"):
        assert (tmp_path / "out" / name).is_file()


def test_wrong_input(source, tmp_path):
    fine = {"--model": source.model, "--data": source.data, "--output": tmp_path / "new"}
    broken = tmp_path / "d.jsonl"
    broken.write_text('{"prompt": "p", "completion": "c"}\n{"prompt"\n', encoding="utf-8")
    for changed, said in (
        ({"--data": broken}, "d.jsonl:2: this line is not JSON"),
        ({"--data": tmp_path / "none.jsonl"}, "no file"),
        ({"--prompt-field": "question"}, "train.jsonl:1: expected the fields 'question' and 'completion'"),
        ({"--model": tmp_path / "none"}, "no folder"),
        ({"--policy": "best"}, "unknown policy 'best'; known: divbs, "),
        ({"--keep": 2}, "`keep` must be a share in (0, 1], got 2.0"),
        ({"--batch-size": 64}, "`batch_size` counts candidates and is 64, more than the"),
        ({"--template": "{prompt}"}, "`template` must hold {prompt} and, after it, {completion}"),
        ({"--holdout": 1}, "`holdout` must be a share"),
        ({"--seeds": 0}, "`seeds` must be at least 1"),
        ({"--steps": "x"}, "Invalid value for '--steps'"),
    ):
        options = [part for option in (fine | changed).items() for part in option]
        assert said in refused("compare", *options), said
    assert not (tmp_path / "new").exists()
    assert "Missing option '--model'" in refused("compare", "--data", source.data)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    import sys

    from uds_adapters import lab

    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "uds_adapters.lab.cli", raising=False)
    monkeypatch.delitem(sys.modules, "uds_adapters.lab.options", raising=False)
    with pytest.raises(SystemExit, match=r"`uds` needs typer, .*pip install 'uds-core\[cli\]'"):
        lab.main()
