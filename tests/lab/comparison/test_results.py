"""What is written about a comparison."""

import json

import pytest

from uds_adapters.lab.comparison import experiment as lab
from uds_adapters.lab.comparison.plan import Plan
from uds_adapters.lab.comparison.results import describe, save
from uds_adapters.lab.comparison.run_store import Runs
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.task import prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Written by a comparison of two policies and two seeds."""
    folder = tmp_path_factory.mktemp("results")
    source = scenario.make(folder, sizes=scenario.Sizes(train=60, heldout=8, texts=30, pretraining_steps=2), seed=0)
    settings = Settings(keep=0.25, batch_size=8, steps=2, learning_rate=1e-3, threads=1, budget="samples")
    plan, runs, task = Plan(source=source, settings=settings, seed=0), Runs(folder), prepare(source, seed=0)
    runs.claim(plan, overwrite=True)
    results = lab.compare(task, policies=["random", "uds"], seeds=[0, 1], plan=plan, runs=runs)
    described = describe(task, results, plan=plan, runs=runs, command="uds compare", flags=scenario.flags(task))
    assert save(described, folder) == folder / "report.html"
    assert json.loads((folder / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_everything_is_there(results):
    assert list(results) == [
        *("schema", "command", "configuration", "versions", "verdict"),
        *("summary", "comparisons", "runs", "records", "map", "preview"),
    ]
    assert results["schema"] == 2
    configuration = results["configuration"]
    assert {name: configuration[name] for name in ("keep", "budget", "policies", "seeds", "steps")} == {
        "keep": 0.25,
        "budget": "samples",
        "policies": ["random", "uds"],
        "seeds": [0, 1],
        "steps": 2,
    }
    assert {"python", "torch", "transformers", "device"} <= results["versions"].keys()
    assert results["map"] is None


def test_summaries_and_comparisons(results):
    assert [(row["policy"], row["seeds"], len(row["interval"])) for row in results["summary"]] == [
        ("random", 2, 2),
        ("uds", 2, 2),
    ]
    assert all(0 <= share <= 1 for row in results["summary"] for share in row["flagged"].values())
    (comparison,) = results["comparisons"]
    assert (comparison["policy"], comparison["rival"], comparison["budget"]) == ("uds", "random", "samples")
    assert comparison["low"] < comparison["difference"] < comparison["high"]
    assert "at equal samples" in results["verdict"]


def test_runs_name_their_audits_and_their_time_adds_up(folder, results):
    for run in results["runs"]:
        assert (folder / run["audit"]).is_file()
        seconds = run["seconds"]
        assert seconds["scoring"] + seconds["forward_backward"] + seconds["rest"] == pytest.approx(seconds["total"])
        assert set(run["evaluations"][0]) == {
            *("step", "samples", "tokens", "seconds", "loss", "accuracy", "exact_match")
        }
        assert "measured" not in run


def test_records_are_told_with_their_copies(results):
    records = results["records"]
    assert [record["line"] for record in records] == list(range(1, 61))
    assert all(record["trained"] < record["length"] for record in records)
    assert sum(record["flags"]["repeated"] for record in records) == 15
    copies = [record for record in records if record["duplicate_of"] is not None]
    assert copies
    assert all(record["duplicate_of"] < place for place, record in enumerate(records) if record in copies)


def test_the_report_is_one_page(folder):
    assert "uds compare" in (folder / "report.html").read_text(encoding="utf-8")
