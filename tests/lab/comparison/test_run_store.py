"""A folder of runs: whose it is, what is finished, and what may join."""

import math
from dataclasses import replace

import pytest

from uds_adapters.audit import Audit
from uds_adapters.lab.comparison.plan import Plan
from uds_adapters.lab.comparison.run_store import Runs
from uds_adapters.lab.data.source import Source
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.evaluation.heldout import Measured
from uds_adapters.lab.training.run_result import Evaluation, RunResult
from uds_adapters.lab.training.settings import Settings


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "data.jsonl").write_text("{}", encoding="utf-8")
    source = Source(model=tmp_path / "model", data=tmp_path / "data.jsonl")
    return Plan(source=source, settings=Settings(), seed=0)


def result(policy="uds", seed=0, **more):
    return RunResult(
        policy=policy,
        seed=seed,
        steps=1,
        candidates=8,
        samples=2,
        tokens={"trained": 5},
        seconds={"total": 0.1 + 0.2},
        evaluations=[Evaluation(step=0, samples=0, tokens=0, seconds=0.0, loss=1 / 3)],
        selected=[[3, 1]],
        measured=Measured(losses=[0.1, 0.7], tokens=[1, 2], answers={"accuracy": [True, False]}),
        **more,
    )


def test_a_finished_run_comes_back_as_it_was(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    assert runs.finished("uds", 0) is None
    runs.keep(result())
    assert runs.finished("uds", 0) == result()
    assert runs.finished("uds", 1) is None
    without = replace(result(seed=1), measured=None)
    runs.keep(without)
    assert runs.finished("uds", 1) == without
    assert runs.plan() == plan


def test_a_run_that_diverged_is_kept_as_json_and_comes_back(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    bad = Evaluation(step=0, samples=0, tokens=0, seconds=0.0, loss=math.inf)
    runs.keep(
        replace(result(), evaluations=[bad], measured=Measured(losses=[math.nan, 1.0], tokens=[1, 2], answers={}))
    )
    text = next((tmp_path / "out" / "runs").glob("*.json")).read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    found = runs.finished("uds", 0)
    assert found is not None
    assert math.isnan(found.evaluations[0].loss)
    assert found.measured is not None
    assert math.isnan(found.measured.losses[0])
    assert found.measured.losses[1] == 1.0


def test_other_numbers_of_jobs_and_threads_go_on(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    for threads in (None, 1, 4):  # two processes take one each, a single one as many as there are
        runs.claim(replace(plan, settings=replace(plan.settings, threads=threads)), overwrite=False)
        assert runs.plan().settings.threads == threads


def test_the_same_plan_goes_on_and_another_is_refused_by_name(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    runs.keep(result())
    runs.claim(plan, overwrite=False)
    assert runs.finished("uds", 0) is not None
    other = replace(plan, settings=Settings(keep=0.5, learning_rate=1e-3), seed=1)
    with pytest.raises(LabError, match=r"keep was 0\.25, now 0\.5; learning_rate was .*; seed was 0, now 1.*overwrite"):
        runs.claim(other, overwrite=False)
    runs.claim(other, overwrite=True)
    assert runs.finished("uds", 0) is None


def test_data_that_changed_are_noticed_and_data_that_moved_are_not(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    runs.keep(result())
    moved = tmp_path / "moved.jsonl"
    moved.write_text("{}", encoding="utf-8")
    runs.claim(replace(plan, source=replace(plan.source, data=moved)), overwrite=False)
    assert runs.plan().source.data == moved
    moved.write_text("{} ", encoding="utf-8")
    with pytest.raises(LabError, match=r"fingerprints\.data was"):
        runs.claim(replace(plan, source=replace(plan.source, data=moved)), overwrite=False)


def test_a_folder_of_something_else_is_refused(tmp_path, plan):
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(LabError, match=r"already holds files.*--overwrite"):
        Runs(tmp_path).claim(plan, overwrite=False)
    Runs(tmp_path).claim(plan, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "precious"
    with pytest.raises(LabError, match="is a file"):
        Runs(tmp_path / "thesis.txt").claim(plan, overwrite=True)


def test_results_of_another_plan_are_refused_when_they_are_read(tmp_path, plan):
    """As when another command begins anew in the folder while this one trains."""
    mine, other = Runs(tmp_path / "out"), Runs(tmp_path / "out")
    mine.claim(plan, overwrite=False)
    mine.keep(result(seed=1))
    other.claim(replace(plan, settings=replace(plan.settings, steps=7)), overwrite=True)
    other.keep(result(seed=0))
    assert other.finished("uds", 1) is None
    mine.keep(result(seed=1))
    assert mine.finished("uds", 1) == result(seed=1)
    for runs, seed in ((mine, 0), (other, 1)):
        with pytest.raises(LabError, match=rf"uds-seed{seed}\.json is the result of another configuration"):
            runs.finished("uds", seed)
    with pytest.raises(LabError, match="another configuration"):
        Runs(tmp_path / "out").finished("uds", 1)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"plan": null}'])
def test_results_that_cannot_be_read(tmp_path, plan, content):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    runs.keep(result())
    (runs.runs / "uds-seed0.json").write_text(content, encoding="utf-8")
    with pytest.raises(LabError, match=r"uds-seed0\.json cannot be read"):
        runs.finished("uds", 0)


def test_audits_begin_anew(tmp_path, plan):
    runs = Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    assert runs.audit("uds", 0) is None
    for _ in range(2):
        with Audit(runs.fresh_audit("uds", 0)) as audit:
            audit.record(0, None, {"score": [1.0]}, [0])
    with Audit(runs.fresh_audit("uds", 10)) as audit:
        audit.record(0, None, {"score": [1.0]}, [0])
    assert runs.audit("uds", 0) == "runs/uds-seed0.audit.jsonl"
    assert (runs.folder / "runs/uds-seed0.audit.jsonl").read_text(encoding="utf-8").count("\n") == 1
    runs.fresh_audit("uds", 1)
    assert runs.audit("uds", 10) is not None
