"""The command as a user types it."""

import inspect
import json
import os
import platform
import re
import subprocess
import sys

import pytest
from conftest import DATA, shared
from typer.testing import CliRunner

import uds_core
from uds_adapters.lab.cli import app
from uds_adapters.lab.console import options, terminal
from uds_adapters.lab.demo import scenario

COMMANDS = {str(command.callback.__name__): command.callback for command in app.registered_commands if command.callback}
QUICK = ["--steps", "2", "--batch-size", "8", "--eval-every", "1"]


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("cli"), sizes=sizes, seed=0)


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def words(text):
    return " ".join(text.replace("\u2502", " ").split())


def test_help_names_every_policy():
    ours = [name for name in uds_core.names() if uds_core.get(name).__module__.startswith("uds_core.")]
    assert sorted(options.NAMES) == ours
    assert f"Names: {', '.join(options.NAMES)}" in words(uds("compare", "--help").output)


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


def test_the_version():
    import uds_core

    assert uds("--version").output.strip() == uds_core.__version__


def test_examples_stand_line_by_line():
    shown = uds("compare", "--help").output
    assert "Examples:" in shown
    assert any(line.strip().startswith("uds compare --model") for line in shown.splitlines())


@pytest.mark.parametrize("command", ["demo", "profile", "compare", "train", "tune", "score", "dedup", "report", "show"])
def test_examples_of_the_help_are_not_wrapped(command):
    shown = [line.strip() for line in uds(command, "--help").output.splitlines()]
    text = inspect.getdoc(COMMANDS[command]) or ""
    examples = [line.strip() for line in text.partition("Examples\n--------\n")[2].splitlines() if line.strip()]
    assert examples
    assert [line for line in examples if line not in shown] == []


@pytest.mark.parametrize("command", ["demo", "profile", "compare", "train", "tune", "score"])
def test_the_policy_is_the_first_option_of_the_help(command):
    listed = re.findall(r"^\u2502[ *]+(--[a-z-]+)", uds(command, "--help").output, re.MULTILINE)
    assert next(name for name in listed if name != "--help") == "--policy"


@pytest.mark.parametrize(
    ("cuda", "library", "variables", "printed"),
    [
        (False, "glibc", {}, True),
        (True, "glibc", {}, False),
        (False, "", {}, False),
        (False, "glibc", {"MALLOC_TOP_PAD_": "1"}, False),
        (False, "glibc", {"LD_PRELOAD": "libjemalloc.so"}, False),
    ],
)
def test_the_allocator_is_hinted_at_where_it_helps(monkeypatch, capsys, cuda, library, variables, printed):
    import torch

    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "LD_PRELOAD"]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    terminal.hint_at_allocator()
    out, err = capsys.readouterr()
    assert out == ""
    assert ("export MALLOC_MMAP_MAX_=0 " in err) == printed


def completed(**asked):
    code = "import sys; sys.argv = ['uds']; from uds_adapters.lab.__main__ import main; main()"
    environment = {**os.environ, **asked}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_shells_complete():
    assert "complete -o" in completed(_UDS_COMPLETE="source_bash").stdout
    asked = {"_UDS_COMPLETE": "complete_bash", "COMP_WORDS": "uds com", "COMP_CWORD": "1"}
    assert completed(**asked).stdout.split() == ["compare"]


def test_compare(source, tmp_path):
    output = tmp_path / "out"
    options = ["--model", source.model, "--data", source.data, "--policy", "random", "--policy", "uds", "--seeds", 2]
    more = [*QUICK, "--holdout", "0.2", "--output", output]
    result = uds("compare", *options, *more)
    assert result.exit_code == 0, result.output
    assert "32 training examples, 8 held out." in result.output
    assert "reached the lowest held-out loss" in words(result.output)
    assert "at equal candidates" in words(result.output)
    assert f"Report: {output / 'report.html'}" in result.output
    assert "\u2026" not in result.output  # the table fits into 80 columns
    runs = json.loads((output / "results.json").read_text(encoding="utf-8"))["runs"]
    assert [(run["policy"], run["seed"]) for run in runs] == [("random", 0), ("uds", 0), ("random", 1), ("uds", 1)]
    again = uds("compare", *options, *more, "--json")
    assert json.loads(again.stdout)["runs"] == runs
    assert "4 of 4 runs are finished" in again.stderr
    assert "keep was 0.25, now 0.5" in refused("compare", *options, *more, "--keep", "0.5")
    anew = uds("compare", *options, *more, "--keep", "0.5", "--overwrite")
    assert anew.exit_code == 0, anew.output


def test_answers_are_measured(source, tmp_path):
    data = tmp_path / "choices.jsonl"
    lines = [{"question": f"Is {n} even or odd?", "choices": ["even", "odd"], "answer": n % 2} for n in range(24)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    fields = ["--prompt-field", "question", "--completion-field", "answer", "--holdout", "0.25"]
    metrics = ["--metric", "accuracy", "--metric", "exact-match", "--answer-tokens", "4", "--seeds", 2]
    result = uds(
        *("compare", "--model", source.model, "--data", data, *fields, *metrics, *QUICK),
        *("--policy", "random", "--policy", "longest", "--output", tmp_path / "out", "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    for row in (*found["summary"], *found["runs"][0]["evaluations"]):
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["exact_match"] <= 1
    assert [one["metric"] for one in found["comparisons"]] == ["loss", "accuracy", "exact_match"]
    assert "In accuracy, longest is" in found["verdict"]
    assert "accuracy %" in result.stderr


@pytest.mark.slow
def test_every_policy_is_compared(source, tmp_path):
    names = [name for name in uds_core.names() if name != "rds"]  # it chooses before training
    policies = [part for name in names for part in ("--policy", name)]
    for lora in ([], ["--lora", "--lora-rank", "2"]):
        result = uds(
            *("compare", "--model", source.model, "--data", source.data, "--holdout", "0.2", "--aside", "0.2"),
            *("--target", source.data),
            *(*policies, *QUICK, *lora, "--output", tmp_path / f"out{len(lora)}", "--json"),
        )
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert [run["policy"] for run in found["runs"]] == list(names)
        assert all(run["evaluations"][-1]["loss"] > 0 for run in found["runs"])
        prepared = {run["policy"] for run in found["runs"] if run["tokens"]["preparation"]}
        assert prepared == {"rholoss", "lossdrop"}


@pytest.mark.slow
def test_compare_on_real_data(stories, tmp_path):
    data = shared(DATA, "gsm8k")
    fields = ["--prompt-field", "question", "--completion-field", "answer"]
    files = ["--data", data / "train.jsonl", "--eval-data", data / "test.jsonl", "--limit", 64, "--eval-limit", 4]
    result = uds(
        *("compare", "--model", stories, *files, *fields, "--max-length", "192", "--seeds", 2, "--budget", "tokens"),
        *(*QUICK, "--policy", "random", "--policy", "uds", "--metric", "exact-match", "--answer-tokens", "8"),
        *("--output", tmp_path / "out", "--json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "at equal tokens" in found["verdict"]
    assert [row["exact_match"] for row in found["summary"]] == [0.0, 0.0]  # no `####` within eight tokens
    assert {record["duplicate_of"] for record in found["records"]} == {None}
    for run in found["runs"]:
        losses = [evaluation["loss"] for evaluation in run["evaluations"]]
        assert losses[-1] < losses[0]


def test_demo(tmp_path):
    options = ["--steps", 2, "--records", 60, "--pretraining-steps", 2, "--seeds", 1]
    result = uds("demo", *options, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith("report.html")
    assert "wrong %" in result.output
    for name in ("results.json", "report.html", "train.jsonl", "heldout.jsonl", "model/config.json"):
        assert (tmp_path / "out" / name).is_file()
    again = uds("demo", *options, "--output", tmp_path / "out")
    assert "3 of 3 runs are finished" in again.output
    assert "pretraining" not in again.output


def test_wrong_input(source, tmp_path):
    fine = {"--model": source.model, "--data": source.data, "--output": tmp_path / "new"}
    broken = tmp_path / "d.jsonl"
    broken.write_text('{"prompt": "p", "completion": "c"}\n{"prompt"\n', encoding="utf-8")
    for changed, said in (
        ({"--data": broken}, "d.jsonl:2: this line is not JSON"),
        ({"--data": tmp_path / "none.jsonl"}, "no file"),
        ({"--prompt-field": "question"}, "train.jsonl:1: expected the fields 'question' and 'completion'"),
        ({"--model": tmp_path / "none"}, "no folder"),
        ({"--policy": "best"}, "unknown policy 'best'; known: cascade, "),
        ({"--keep": 2}, "`keep` must be a fraction in (0, 1], got 2.0"),
        ({"--batch-size": 64}, "`batch_size` counts candidates and is 64, more than the"),
        ({"--template": "{prompt}"}, "`template` must hold {prompt} and, after it, {completion}"),
        ({"--holdout": 1}, "`holdout` must be a fraction"),
        ({"--seeds": 0}, "`seeds` must be at least 1"),
        ({"--metric": "taste"}, "`metric` must be accuracy or exact_match, each once, got taste"),
        ({"--metric": "accuracy"}, "`--metric accuracy` needs at least two choices"),
        ({"--policy": "greats", "--aside": 0}, "greats needs training records that are no candidates"),
        ({"--aside": 1}, "`aside` must be a fraction in [0, 1), got 1.0"),
        ({"--jobs": 0}, "`jobs` must be at least 1, got 0"),
        ({"--steps": "x"}, "Invalid value for '--steps'"),
    ):
        options = [part for option in (fine | changed).items() for part in option]
        assert said in refused("compare", *options), said
    assert not (tmp_path / "new").exists()
    assert "Missing option '--model'" in refused("compare", "--data", source.data)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    import sys

    from uds_adapters.lab.__main__ import main

    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "uds_adapters.lab.cli", raising=False)
    monkeypatch.delitem(sys.modules, "uds_adapters.lab.console.options", raising=False)
    with pytest.raises(SystemExit, match=r"`uds` needs typer, .*pip install 'uds-core\[cli\]'"):
        main()
