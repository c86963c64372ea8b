"""The demo's folder holds everything that a comparison needs."""

from uds_adapters.lab.data.records import read
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.training.task import prepare

SIZES = scenario.Sizes(train=60, heldout=8, texts=30, pretraining_steps=2)


def test_data_and_model_are_made_and_flags_known(tmp_path):
    steps = []
    source = scenario.make(tmp_path, sizes=SIZES, seed=0, after_step=steps.append)
    task = prepare(source, seed=0)
    assert steps == [1, 2]
    assert (len(task.train), len(task.heldout), task.left_out) == (60, 8, 0)
    assert {name: sum(values) for name, values in scenario.flags(task).items()} == {"wrong": 9, "repeated": 15}
    assert not any(record.raw["wrong"] or record.raw["repeated"] for record in read(tmp_path / "heldout.jsonl"))


def test_held_out_instructions_are_new(tmp_path):
    scenario.make(tmp_path, sizes=SIZES, seed=0)
    train, held = ({record.prompt for record in read(tmp_path / f"{name}.jsonl")} for name in ("train", "heldout"))
    assert not train & held
