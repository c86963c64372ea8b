"""A target on the command line: what resembles it is chosen, by n-grams and by hidden states."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import uds_core
from uds_adapters.lab.cli import app
from uds_adapters.lab.data.encoding import Collator, pad_id
from uds_adapters.lab.data.source import Source
from uds_adapters.lab.data.target import examples, target_counts
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.training.task import encoder_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = scenario.Sizes(train=8, heldout=4, texts=30, pretraining_steps=2)
    return scenario.make(tmp_path_factory.mktemp("target"), sizes=sizes, seed=0).model


@pytest.fixture
def files(tmp_path):
    """A pool of sums and stories, and a target of other stories."""
    sums = [{"prompt": f"What is {i} + {i % 7}?", "completion": f" {i + i % 7}", "kind": "sum"} for i in range(30)]
    tales = [
        {"prompt": f"Tell a tale of the dog {i}.", "completion": f" The dog {i} ran home and slept.", "kind": "tale"}
        for i in range(10)
    ]
    pool = [tales[i // 4] if i % 4 == 0 else sums[i - i // 4 - 1] for i in range(40)]
    target = [{"prompt": f"Tell a tale of the cat {i}.", "completion": f" The cat {i} ran, slept."} for i in range(5)]
    for name, records in (("pool", pool), ("target", target)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return tmp_path


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("policy", ["targeted:noise=0", "rds", "fresh:targeted,noise=0,threshold=1.1"])
def test_score_keeps_what_resembles_the_target(model, files, policy):
    common = ["score", "--model", model, "--data", files / "pool.jsonl", "--output", files / "s.parquet"]
    result = uds(*common, "--target", files / "target.jsonl", "--policy", policy, "--keep", 10, "--rounds", 1,
                 "--subset", files / "best.jsonl")  # fmt: skip
    assert result.exit_code == 0, result.output
    kept = [json.loads(line)["kind"] for line in (files / "best.jsonl").read_text().splitlines()]
    assert kept.count("tale") >= 9
    assert pq.read_table(files / "s.parquet")["chosen"].to_pylist().count(True) == 10


def test_the_target_is_read_as_the_data_is_and_counted_without_padding(model, files):
    source = Source(model=model, data=files / "pool.jsonl", target=files / "target.jsonl")
    encoder = encoder_of(source)
    some = examples(source, encoder)
    expected = sum(uds_core.ngram_counts(torch.tensor([one["input_ids"]])).sum(0).numpy() for one in some)
    got = target_counts(some, Collator(pad_id(encoder.tokenizer)))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "--policy", "rds"], "name a file of records of what the model must do with `--target`"),
        (["score", "--policy", "targeted"], "name a file of records of what the model must do with `--target`"),
        (["compare", "--policy", "targeted"], "needs samples of a target"),
        (["train", "--policy", "fresh:targeted"], "needs samples of a target"),
        (["compare", "--policy", "rds", "--target", "target.jsonl"], "policy rds chooses once, before training"),
        (["train", "--policy", "rds", "--target", "target.jsonl"], "policy rds chooses once, before training"),
        (["score", "--policy", "rds", "--target", "none.jsonl"], "none.jsonl"),
    ],
)
def test_errors_name_the_option(model, files, monkeypatch, arguments, words):
    monkeypatch.chdir(files)
    command, *rest = arguments
    result = uds(command, "--model", model, "--data", "pool.jsonl", *rest, "--output", files / "out")
    assert result.exit_code != 0
    assert words in " ".join(result.output.replace("│", " ").split())


@pytest.mark.slow
def test_training_chooses_by_the_target(model, files):
    common = ["--model", model, "--data", files / "pool.jsonl", "--target", files / "target.jsonl", "--steps", 4]
    for command, output in (("compare", "a"), ("train", "b")):
        result = uds(command, *common, "--policy", "targeted:noise=0", "--output", files / output, "--batch-size", 8)
        assert result.exit_code == 0, result.output


def test_a_comparison_with_a_target_has_a_policy_that_uses_it(model, files):
    common = ["compare", "--model", model, "--data", files / "pool.jsonl", "--target", files / "target.jsonl"]
    result = uds(*common, "--output", files / "out", "--steps", 1, "--batch-size", 8)
    assert result.exit_code == 0, result.output
    found = json.loads((files / "out" / "results.json").read_text("utf-8"))
    assert {row["policy"] for row in found["summary"]} == {"full", "random", "targeted", "uds"}
