"""What a step costs on this machine, from its parts."""

import json
from typing import Any

import pytest
import torch
from conftest import DATA, shared
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.profile import measure
from uds_adapters.lab.profile.measure import Phases
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.task import prepare

RECORDS = 40


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=RECORDS, heldout=8, texts=30, pretraining_steps=2)
    return scenario.make(tmp_path_factory.mktemp("profile"), sizes=sizes, seed=0)


@pytest.fixture(scope="module")
def task(source):
    return prepare(source, seed=0)


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Ticks:
    """A clock by which a pass over one token takes one second, so that predictions can be computed by hand."""

    def __init__(self, measured):
        self.time = 0.0
        measured.clock.now = lambda: self.time
        forward = measured.model.forward

        def slow(*args, **kwargs):
            self.time += kwargs["input_ids"].numel()
            return forward(*args, **kwargs)

        measured.model.forward = slow


def test_predictions_are_of_batches_as_long_as_those_of_the_data(task):
    measured = Phases(task, Settings(threads=1), policy="maxloss", seed=0)
    Ticks(measured)
    reported = []
    found = measured.predict([8], repeats=4, progress=reported.append)
    assert reported == [1, 2, 3, 4, 5]
    assert [(p.candidates, p.keep, p.kept) for p in found] == [(8, 0.125, 1), (8, 0.25, 2), (8, 0.5, 4)]
    case = measured._case(8, 4)
    for p in found:
        assert p.full.forward == pytest.approx(case.padded)
        assert p.selecting.scoring == pytest.approx(case.padded)
        assert p.random.forward == pytest.approx(case.random[p.kept])
        assert p.full.backward == p.full.update == p.full.scoring == p.random.scoring == 0.0
    lengths = [len(example["input_ids"]) for example in task.train]
    assert case.random[1] == pytest.approx(sum(lengths) / len(lengths), rel=0.05)  # over 64 draws
    assert case.padded > 8 * case.random[1]  # padded to the longest


def test_the_kept_are_those_that_the_policy_chooses(task):
    seconds = {}
    for policy in ("longest", "shortest"):
        measured = Phases(task, Settings(threads=1), policy=policy, seed=0)
        Ticks(measured)
        (p,) = [p for p in measured.predict([16], repeats=4) if p.keep == 0.25]
        seconds[policy] = p.selecting.forward
        assert p.selecting.scoring == 0.0  # no pass
    assert seconds["longest"] > seconds["shortest"]


@pytest.mark.parametrize("settings", [Settings(threads=1), Settings(threads=1, lora_rank=2)], ids=["full", "lora"])
def test_weights_stay_and_every_part_takes_time(task, settings):
    measured = Phases(task, settings, policy="uds", seed=0)
    before = {name: tensor.clone() for name, tensor in measured.model.state_dict().items()}
    (p,) = measured.predict([2], repeats=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in measured.model.state_dict().items())
    assert min(p.selecting.collate, p.selecting.scoring, p.selecting.forward, p.selecting.backward) > 0
    assert p.selecting.update > 0
    assert {(memory.phase, memory.samples) for memory in measured.memory} == {
        ("scoring", 2), ("training", 1), ("training", 2), ("evaluation", 16)
    }  # fmt: skip
    peaks: dict[Any, Any] = {(memory.phase, memory.samples): memory.bytes for memory in measured.memory}
    if None not in peaks.values():
        assert p.peak == max(peaks["scoring", 2], peaks["training", 1], peaks["evaluation", 16])
        assert p.full_peak == max(peaks["training", 2], peaks["evaluation", 16])
    assert (len(measured.trained) < len([*measured.model.parameters()])) == (settings.lora_rank is not None)


def test_the_command(source):
    options = ["--model", source.model, "--data", source.data, "--threads", 1, "--candidates", 4, "--repeats", 1]
    result = uds("profile", *options, "--check", "--check-steps", 1, "--json")
    assert result.exit_code == 0, result.output
    reported = json.loads(result.stdout)
    assert [(p["candidates"], p["kept"]) for p in reported["predictions"]] == [(4, 1), (4, 2)]
    for p in reported["predictions"]:
        assert p["of_full"] == pytest.approx(sum(p["selecting"].values()) / sum(p["full"].values()))
    assert [one["policy"] for one in reported["check"]] == ["full", "random", "uds"]
    assert all(one["error"] == pytest.approx(one["predicted"] / one["measured"] - 1) for one in reported["check"])
    assert "Selection " in " ".join(result.stderr.split())
    assert "Peak of memory" in result.stderr
    assert "Predicted peak of a run" in " ".join(result.stderr.split())
    assert uds("profile", "--help").exit_code == 0


@pytest.mark.slow
def test_a_policy_that_is_checked_anyway_is_checked_twice(source):
    options = ["--model", source.model, "--data", source.data, "--threads", 1, "--candidates", 4, "--repeats", 1]
    result = uds("profile", *options, "--policy", "random", "--check", "--check-steps", 1, "--json")
    assert [one["policy"] for one in json.loads(result.stdout)["check"]] == ["full", "random", "random"]


def test_wrong_input_is_told(source, monkeypatch):
    fine = {"--model": source.model, "--data": source.data, "--candidates": 4, "--repeats": 1}
    for changed, said in (
        ({"--policy": "best"}, "unknown policy"),
        ({"--policy": "uds:keep=0.5"}, "says how much is kept"),
        ({"--policy": "infobatch"}, "has importance weights, whose loss is not measured here"),
        ({"--policy": "uds:temperature=1.0"}, "has importance weights, whose loss is not measured here"),
        ({"--policy": "greats"}, "the policy 'greats' cannot choose from these records"),
        ({"--candidates": 1}, "`candidates` must be between 2 and the number of training examples, 40, got 1"),
        ({"--candidates": 41}, "got 41"),
        ({"--data": source.data.parent / "none"}, "no file"),
        ({"--model": source.data.parent}, "config.json"),
    ):
        result = uds("profile", *[part for option in (fine | changed).items() for part in option])
        assert result.exit_code == 2, (said, result.output)
        assert said in " ".join(result.output.split())

    def out_of_memory(*_args, **_options):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(measure.Phases, "_turn", out_of_memory)
    result = uds("profile", *[part for option in fine.items() for part in option])
    assert "memory ends in a step on 4 samples" in " ".join(result.output.split())


@pytest.mark.slow
def test_on_a_pretrained_model(stories):
    data = shared(DATA, "gsm8k") / "train.jsonl"
    fields = ["--prompt-field", "question", "--completion-field", "answer"]
    options = ["--model", stories, "--data", data, *fields, "--limit", 200, "--threads", 1, "--repeats", 2]
    result = uds("profile", *options, "--candidates", 8, "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["predictions"]) == 3
