"""A source becomes training and held-out examples, or a sentence that says why not."""

import json
from dataclasses import replace

import pytest

from uds_adapters.batches import IGNORE
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.errors import LabError, LabWarning
from uds_adapters.lab.training.task import prepare


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("task"), sizes=sizes, seed=0)


def test_a_held_out_file(source):
    task = prepare(replace(source, limit=30, eval_limit=5), seed=0)
    assert (len(task.train), len(task.heldout), task.left_out) == (30, 5, 0)
    assert [example["index"] for example in task.train] == list(range(30))
    assert [record.line for record in task.records] == list(range(1, 31))


def test_a_held_out_share_is_left_out_of_training(source):
    alone = replace(source, eval_data=None, holdout=0.25)
    task = prepare(alone, seed=0)
    assert (len(task.train), len(task.heldout)) == (30, 10)
    assert len({record.line for record in task.records}) == 30
    assert prepare(alone, seed=1).records != task.records


def test_nothing_held_out(source):
    task = prepare(replace(source, eval_data=None, holdout=0.0), seed=0)
    assert (len(task.train), task.heldout, task.measure()) == (40, [], None)


def test_what_does_not_fit_is_left_out(source):
    whole = prepare(source, seed=0)
    length = sorted(len(example["input_ids"]) for example in whole.train)[5]
    assert prepare(replace(source, max_length=length), seed=0).left_out > 0
    with pytest.raises(LabError, match="`max_length` = 2"):
        prepare(replace(source, max_length=2), seed=0)


def test_the_limit_of_training_records_limits_what_is_held_out(source, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"prompt": "q {i}", "completion": "a {i}"}}\n' for i in range(400)), encoding="utf-8")
    source = replace(source, data=data, eval_data=None, holdout=0.2, limit=40)
    for eval_limit, expected in ((None, 10), (3, 3), (30, 30)):
        task = prepare(replace(source, eval_limit=eval_limit), seed=0)
        assert (len(task.train), len(task.heldout)) == (40, expected)


def test_held_out_records_that_are_training_records_are_counted(source, tmp_path):
    files = {}
    for name, numbers in (("train", range(20)), ("heldout", range(17, 25))):
        files[name] = tmp_path / f"{name}.jsonl"
        lines = [f'{{"prompt": "q {i}", "completion": "a {i}", "from": "{name}"}}\n' for i in numbers]
        files[name].write_text("".join(lines), encoding="utf-8")
    source = replace(source, data=files["train"], eval_data=files["heldout"])
    with pytest.warns(LabWarning, match=r"^3 of 8 held-out records are training records too"):
        prepare(source, seed=0)
    prepare(replace(source, limit=17), seed=0)  # which are not trained on


def test_all_answers_reach_the_labels_of_training_and_held_out_examples(source, tmp_path):
    data = tmp_path / "chats.jsonl"
    turns = [
        {"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "yes"), ("user", "r"), ("assistant", "no"))
    ]
    data.write_text(f"{json.dumps({'messages': turns})}\n" * 8, encoding="utf-8")
    source = replace(source, data=data, eval_data=None, holdout=0.5)
    with pytest.warns(LabWarning):
        last, every = (prepare(replace(source, train_on=which), seed=0) for which in ("last", "all"))
    decode = last.tokenizer.decode
    for found, words in ((last, "no</s>"), (every, " yesno</s>")):
        for example in (*found.train, *found.heldout):
            assert decode([label for label in example["labels"] if label != IGNORE]) == words


@pytest.mark.filterwarnings("ignore:.* held-out records are training records too")
@pytest.mark.parametrize("held_out", [{"holdout": 0.3}, {"holdout": 0.0}, {}], ids=["fraction", "none", "file"])
def test_examples_in_files_are_those_in_memory(source, tmp_path, monkeypatch, held_out):
    monkeypatch.setattr("uds_adapters.lab.training.task._WINDOW", 7)  # several windows, the last one smaller
    own = replace(source, aside=0.2, limit=30, **({"eval_data": None, **held_out} if held_out else {}))
    there, here = prepare(own, seed=3, folder=tmp_path), prepare(own, seed=3)
    for name in ("train", "heldout", "aside"):
        assert [*getattr(there, name)] == [*getattr(here, name)]
    assert there.words() == here.words()
    assert (there.measure() is None) == (not here.heldout)
    assert there.records == there.heldout_records == []
    assert [example["index"] for example in there.train] == list(range(len(here.records)))
