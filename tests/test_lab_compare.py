"""The grid of runs and its folder."""

import json
import re

import pytest

from uds_adapters.lab import compare as lab
from uds_adapters.lab import demo
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.order import CandidateOrder
from uds_adapters.lab.settings import Settings
from uds_adapters.lab.task import prepare

SETTINGS = Settings(keep=0.25, batch_size=8, steps=4, learning_rate=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The results of two policies and two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    sizes = demo.Sizes(train=60, heldout=8, texts=30, pretraining_steps=2)
    source = demo.make(folder, sizes=sizes, seed=0)
    task = prepare(source, seed=0)
    told = []
    runs = lab.compare(
        task,
        policies=["random", "uds"],
        seeds=[0, 1],
        settings=SETTINGS,
        folder=folder,
        progress=lambda *step: told.append(step),
    )
    assert told == [(p, s, n) for s in (0, 1) for p in ("random", "uds") for n in (1, 2, 3, 4)]
    described = lab.describe(
        task, runs, source=source, settings=SETTINGS, command="uds compare", flags=demo.flags(task)
    )
    assert lab.save(described, folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_results_hold_everything(results):
    names = {"command", "configuration", "versions", "summary", "verdict", "runs", "training_lines"}
    assert results.keys() == names
    assert results["configuration"]["keep"] == 0.25
    assert results["configuration"]["policies"] == ["random", "uds"]
    assert results["configuration"]["seeds"] == [0, 1]
    assert results["configuration"]["steps"] == 4
    assert {"python", "torch", "transformers", "device"} <= results["versions"].keys()
    assert results["training_lines"] == list(range(1, 61))
    assert [row["seeds"] for row in results["summary"]] == [2, 2]
    assert all(0 <= share <= 1 for row in results["summary"] for share in row["flagged"].values())


def test_indices_lie_in_the_candidates_and_are_equally_many(results):
    for run in results["runs"]:
        order = CandidateOrder(60, batch_size=8, seed=run["seed"]).first(32)
        assert [len(step) for step in run["selected"]] == [2] * 4
        for number, step in enumerate(run["selected"]):
            assert set(step) <= set(order[8 * number : 8 * number + 8])


def test_time_parts_add_up(results):
    for run in results["runs"]:
        seconds = run["seconds"]
        assert seconds["scoring"] + seconds["forward_backward"] + seconds["rest"] == pytest.approx(seconds["total"])
        assert run["evaluations"][-1]["seconds"] <= seconds["total"] + 1e-6


def test_all_start_from_the_same_weights(results):
    assert len({run["evaluations"][0]["loss"] for run in results["runs"]}) == 1
    assert [e["step"] for e in results["runs"][0]["evaluations"]] == [0, 1, 2, 3, 4]


def test_only_policies_that_need_it_forward_for_scoring(results):
    for run in results["runs"]:
        scored = run["tokens"]["forwarded_for_scoring"]
        assert scored == (run["tokens"]["candidates"] if run["policy"] == "uds" else 0)


def test_the_report_is_whole(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*\ssrc=", text)
    assert "uds compare" in text


def test_an_output_folder_that_holds_something(tmp_path):
    lab.claim(tmp_path / "a" / "b", overwrite=False)
    lab.claim(tmp_path / "a" / "b", overwrite=False)
    (tmp_path / "a" / "b" / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(LabError, match=r"already holds files.*--overwrite"):
        lab.claim(tmp_path / "a" / "b", overwrite=False)
    lab.claim(tmp_path / "a" / "b", overwrite=True)
    with pytest.raises(LabError, match="is a file"):
        lab.claim(tmp_path / "a" / "b" / "results.json", overwrite=True)


def test_what_would_end_a_later_run_is_found_before_the_first():
    for policies, seeds, said in ((["best"], [0], "unknown"), (["uds", "uds"], [0], "twice"), (["uds"], [], "`seeds`")):
        with pytest.raises(LabError, match=said):
            lab.check(policies, seeds=seeds, settings=SETTINGS)
