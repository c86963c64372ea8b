"""What some policies need beside the candidates."""

import json
from dataclasses import replace

import pytest

from uds_adapters import reference_losses
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.evaluation.heldout import HeldOut
from uds_adapters.lab.models import load_model, quiet
from uds_adapters.lab.training import policy_inputs
from uds_adapters.lab.training.run_result import RunResult
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.task import prepare
from uds_adapters.scoring.layer_gradients import LayerGradientScorer
from uds_adapters.scoring.validation import ValidationScorer

SETTINGS = Settings(keep=0.25, batch_size=8, steps=2, learning_rate=1e-3, threads=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=60, heldout=4, texts=30, pretraining_steps=2)
    return replace(scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0), aside=0.3)


@pytest.fixture(scope="module")
def task(source):
    return prepare(source, seed=0)


def test_what_is_set_aside_is_no_candidate(source, task):
    assert (len(task.train), len(task.aside)) == (42, 18)
    whole = prepare(replace(source, aside=0.0), seed=0).train
    assert sorted(e["input_ids"] for e in [*task.train, *task.aside]) == sorted(e["input_ids"] for e in whole)
    assert [example["index"] for example in task.train] == list(range(42))


def test_how_much_is_set_aside(source):
    ask = policy_inputs.set_aside
    assert ask(["uds", "random"], fraction=None, reference_model=None) == 0
    assert ask(["uds", "greats:eta=0.1"], fraction=None, reference_model=None) == policy_inputs.ASIDE
    assert ask(["rholoss"], fraction=None, reference_model=None) == policy_inputs.ASIDE
    assert ask(["rholoss"], fraction=None, reference_model=source.model) == 0
    assert ask(["uds"], fraction=0.3, reference_model=None) == 0.3
    with pytest.raises(LabError, match="greats needs training records"):
        ask(["greats"], fraction=0, reference_model=None)


def losses_of(model, task):
    heldout = HeldOut(task.train, collator=task.collator).measure(model)
    return [loss / tokens for loss, tokens in zip(heldout.losses, heldout.tokens, strict=True)]


def test_losses_before_training_and_of_a_model_that_read_what_was_set_aside(source, task, tmp_path):
    with quiet():
        policy_inputs.prepare(
            task, ["rholoss", "lossdrop", "uds"], source=source, settings=SETTINGS, seed=0, folder=tmp_path
        )
    untrained = losses_of(load_model(task.model), task)
    start, reference = (reference_losses.load(tmp_path / f"{n}.safetensors") for n in ("start", "reference"))
    assert start.ids.tolist() == reference.ids.tolist() == list(range(42))
    assert start.values.tolist() == pytest.approx(untrained, abs=1e-4)
    assert sum(reference.values) < sum(start.values)
    costs = json.loads((tmp_path / "reference.json").read_text(encoding="utf-8"))
    read = sum(len(example["input_ids"]) for example in task.train)
    trained = sum(len(example["input_ids"]) for example in task.aside)
    assert costs["tokens"] == read + trained
    before = (tmp_path / "reference.safetensors").stat().st_mtime_ns
    with quiet():
        policy_inputs.prepare(task, ["rholoss"], source=source, settings=SETTINGS, seed=0, folder=tmp_path)
    assert (tmp_path / "reference.safetensors").stat().st_mtime_ns == before
    given = policy_inputs.provide(task, "rholoss", settings=SETTINGS, seed=0, folder=tmp_path)
    assert given.options["reference"].values.tolist() == reference.values.tolist()
    costed = given.costed(empty())
    assert costed.seconds["preparation"] == costs["seconds"] > 0
    assert costed.tokens == {"forwarded_for_scoring": 10, "preparation": costs["tokens"]}


def test_a_reference_model_of_ones_own(source, task, tmp_path):
    own = replace(source, reference_model=source.model)
    with quiet():
        policy_inputs.prepare(task, ["rholoss"], source=own, settings=SETTINGS, seed=0, folder=tmp_path)
    losses = reference_losses.load(tmp_path / "reference.safetensors")
    assert losses.values.tolist() == pytest.approx(losses_of(load_model(task.model), task), abs=1e-4)


def test_a_reference_model_with_other_tokens_is_refused(source, task, tmp_path):
    sizes = scenario.Sizes(train=300, heldout=4, texts=30, pretraining_steps=1)
    other = scenario.make(tmp_path, sizes=sizes, seed=5).model
    own = replace(source, reference_model=other)
    with pytest.raises(LabError, match="another tokenizer"):
        policy_inputs.prepare(task, ["rholoss"], source=own, settings=SETTINGS, seed=0, folder=tmp_path / "p")
    assert not (tmp_path / "p" / "reference.json").exists()


def test_validation_samples_take_turns_and_are_counted(task, tmp_path):
    given = policy_inputs.provide(task, "greats", settings=SETTINGS, seed=0, folder=tmp_path)
    assert given.selection["scorer"].func is ValidationScorer
    lora = replace(SETTINGS, lora_rank=2)
    ghost = policy_inputs.provide(task, "greats", settings=lora, seed=0, folder=tmp_path)
    assert ghost.selection["scorer"].func is LayerGradientScorer
    assert given.validation is not None
    batches = [given.validation() for _ in range(3)]
    assert all("index" not in batch and len(batch["input_ids"]) == 16 for batch in batches)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert given.costed(empty()).tokens["forwarded_for_scoring"] == 10 + tokens
    again = policy_inputs.provide(task, "greats", settings=SETTINGS, seed=0, folder=tmp_path).validation
    assert again is not None
    assert again()["input_ids"].tolist() == batches[0]["input_ids"].tolist()


def empty():
    return RunResult(
        policy="p",
        seed=0,
        steps=0,
        candidates=0,
        samples=0,
        tokens={"forwarded_for_scoring": 10},
        seconds={},
        evaluations=[],
        selected=[],
    )
