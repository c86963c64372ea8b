"""The grid of runs: made once, gone on with, the same for any number of processes."""

import pytest

from uds_adapters.audit import read
from uds_adapters.lab.comparison import experiment as lab
from uds_adapters.lab.comparison import runner
from uds_adapters.lab.comparison.plan import Plan
from uds_adapters.lab.comparison.run_store import Runs
from uds_adapters.lab.data.candidate_order import CandidateOrder
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.task import prepare

SETTINGS = Settings(keep=0.25, batch_size=8, steps=4, learning_rate=1e-3, threads=1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    sizes = scenario.Sizes(train=60, heldout=8, texts=30, pretraining_steps=2)
    return Plan(source=scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0), settings=SETTINGS, seed=0)


@pytest.fixture(scope="module")
def task(plan):
    return prepare(plan.source, seed=0)


def compared(task, plan, folder, *, policies=("random", "uds"), seeds=(0, 1), **more):
    runs = Runs(folder)
    runs.claim(plan, overwrite=False)
    return lab.compare(task, policies=policies, seeds=seeds, plan=plan, runs=runs, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, task, plan):
    """The runs of two policies and two seeds."""
    folder, reported = tmp_path_factory.mktemp("compare"), []
    results = compared(task, plan, folder, progress=lambda *step: reported.append(step))
    assert reported == [(p, s, n) for s in (0, 1) for p in ("random", "uds") for n in (1, 2, 3, 4)]
    assert [(run.policy, run.seed) for run in results] == [("random", 0), ("uds", 0), ("random", 1), ("uds", 1)]
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return [Runs(folder).finished(policy, seed) for seed in (0, 1) for policy in ("random", "uds")]


def test_indices_lie_in_the_candidates_and_are_equally_many(results):
    for run in results:
        order = CandidateOrder(60, batch_size=8, seed=run.seed).first(32)
        assert [len(step) for step in run.selected] == [2] * 4
        for number, step in enumerate(run.selected):
            assert set(step) <= set(order[8 * number : 8 * number + 8])


def test_all_start_from_the_same_weights_and_are_measured_sample_by_sample(results):
    assert len({run.evaluations[0].loss for run in results}) == 1
    assert [e.step for e in results[0].evaluations] == [0, 1, 2, 3, 4]
    for run in results:
        assert len(run.measured.losses) == 8
        assert run.measured.loss == run.evaluations[-1].loss


def test_only_policies_that_need_it_forward_for_scoring(results):
    for run in results:
        scored = run.tokens["forwarded_for_scoring"]
        assert scored == (run.tokens["candidates"] if run.policy == "uds" else 0)


def test_each_run_is_audited(folder, results):
    for run in results:
        rows = list(read(folder / Runs(folder).audit(run.policy, run.seed)))
        assert len(rows) == run.candidates == 32
        kept = [sorted(row["id"] for row in rows if row["chosen"] and row["step"] == step) for step in range(4)]
        assert kept == [sorted(step) for step in run.selected]
        assert run.policy == "random" or {"utility", "diversity"} <= rows[0].keys()


def test_finished_runs_are_not_repeated(folder, task, plan, monkeypatch):
    before = {file: file.read_bytes() for file in (folder / "runs").iterdir()}
    trained = []
    real = runner.train_once

    def counted(*args, **options):
        trained.append((options["policy"], options["seed"], options["settings"].total_steps(60)))
        return real(*args, **options)

    monkeypatch.setattr(runner, "train_once", counted)
    results = compared(task, plan, folder, seeds=(0, 1, 2))
    assert trained == [("uds", 0, 1), ("random", 2, 4), ("uds", 2, 4)]  # the first warms up
    assert len(results) == 6
    assert all(file.read_bytes() == data for file, data in before.items())
    trained.clear()
    assert len(compared(task, plan, folder)) == 4
    assert trained == []


@pytest.mark.slow
def test_an_interrupted_run_is_made_anew(tmp_path, task, plan, results):
    def impatient(policy, _seed, step):
        if (policy, step) == ("uds", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compared(task, plan, tmp_path, progress=impatient)
    names = {file.name for file in (tmp_path / "runs").iterdir()}
    assert names == {"random-seed0.json", "random-seed0.audit.jsonl", "uds-seed0.audit.jsonl"}
    again = compared(task, plan, tmp_path)
    assert [run.selected for run in again] == [run.selected for run in results]
    assert [run.measured for run in again] == [run.measured for run in results]
    assert len(list(read(tmp_path / "runs" / "uds-seed0.audit.jsonl"))) == 32


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, task, plan, results):
    reported = []
    side_by_side = compared(task, plan, tmp_path, jobs=2, progress=lambda *step: reported.append(step))
    assert sorted(reported) == [(p, s, n) for p in ("random", "uds") for s in (0, 1) for n in (1, 2, 3, 4)]
    assert [(run.policy, run.seed) for run in side_by_side] == [(run.policy, run.seed) for run in results]
    for ours, theirs in zip(side_by_side, results, strict=True):
        assert ours.selected == theirs.selected
        assert ours.measured == theirs.measured


def test_what_would_end_a_later_run_is_found_before_the_first():
    for policies, seeds, said in ((["best"], [0], "unknown"), (["uds", "uds"], [0], "twice"), (["uds"], [], "`seeds`")):
        with pytest.raises(LabError, match=said):
            lab.check(policies, seeds=seeds, settings=SETTINGS)
