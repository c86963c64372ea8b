"""One run: the real Trainer, a record of what was chosen, and time that adds up."""

import pytest
from lab_runs import trained

from uds_adapters.lab.data.candidate_order import CandidateOrder
from uds_adapters.lab.models import quiet
from uds_adapters.lab.training.run import train_once
from uds_adapters.lab.training.settings import Settings


@pytest.mark.parametrize("policy", ["random", "uds"])
def test_the_record_of_a_run(task, tmp_path, policy):
    steps = []
    result = trained(task, policy, tmp_path, after_step=steps.append)
    assert steps == [1, 2, 3, 4]
    order = CandidateOrder(len(task.train), batch_size=8, seed=0).first(32)
    for number, chosen in enumerate(result.selected):
        assert len(chosen) == 2
        assert set(chosen) <= set(order[8 * number : 8 * number + 8])
    assert (result.steps, result.candidates, result.samples) == (4, 32, 8)
    assert [(e.step, e.samples) for e in result.evaluations] == [(0, 0), (2, 4), (4, 8)]
    assert [e.tokens for e in result.evaluations] == [
        0,
        *(
            sum(
                label != -100
                for step in result.selected[:n]
                for index in step
                for label in task.train[index]["labels"][1:]
            )
            for n in (2, 4)
        ),
    ]
    assert result.evaluations[0].seconds == pytest.approx(0.0, abs=0.1)
    candidates = sum(len(task.train[index]["input_ids"]) for index in order)
    chosen = [task.train[index] for step in result.selected for index in step]
    assert result.tokens == {
        "candidates": candidates,
        "forwarded_for_scoring": candidates if policy == "uds" else 0,
        "forwarded_for_training": sum(len(example["input_ids"]) for example in chosen),
        "trained": sum(label != -100 for example in chosen for label in example["labels"][1:]),
        "preparation": 0,
    }


def test_seconds_add_up_without_evaluation(task, tmp_path):
    seconds = trained(task, "uds", tmp_path).seconds
    assert seconds["scoring"] + seconds["forward_backward"] + seconds["rest"] == pytest.approx(seconds["total"])
    assert all(value > 0 for name, value in seconds.items() if name != "preparation")


def test_full_at_keep_one_equals_uds_at_keep_one(task, tmp_path):
    settings = Settings(keep=1.0, batch_size=8, steps=3, learning_rate=1e-3)
    losses = [[e.loss for e in trained(task, p, tmp_path, settings=settings).evaluations] for p in ("full", "uds")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_a_run_can_be_repeated(task, tmp_path):
    first, again, other = (trained(task, "uds", tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first.selected == again.selected
    assert first.evaluations[-1].loss == pytest.approx(again.evaluations[-1].loss, abs=1e-5)
    assert first.selected != other.selected


def test_lora_trains_adapters_and_saves_them(task, tmp_path):
    settings = Settings(keep=0.25, batch_size=8, steps=2, learning_rate=1e-2, lora_rank=2)
    with quiet():
        run = train_once(task, policy="uds", seed=0, settings=settings, folder=tmp_path, heldout=task.measure())
    run.model.save_pretrained(tmp_path)
    assert run.result.evaluations[-1].loss != run.result.evaluations[0].loss
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "model.safetensors").exists()


def test_policies_that_remember_samples_are_told_which_they_are(task, tmp_path):
    result = trained(task, "lossdrop", tmp_path)
    assert [len(step) for step in result.selected] == [2] * 4
    assert all(0 <= index < len(task.train) for step in result.selected for index in step)
