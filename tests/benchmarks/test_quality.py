"""The study of benchmarks/quality: declared grids, what is done to records, and the arithmetic of its tables."""

import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "quality"
RESULTS = FOLDER.parent / "results"
GRIDS = sorted(FOLDER.glob("*.yaml"))

for needed in ("scipy", "yaml", "torch", "transformers", "typer"):
    pytest.importorskip(needed, reason=f"the study needs {needed}")

import agree  # noqa: E402
import analysis  # noqa: E402
import clock  # noqa: E402
import conditions  # noqa: E402
import grid  # noqa: E402
import paper  # noqa: E402
import paying  # noqa: E402
import tables  # noqa: E402
import tasks  # noqa: E402

from uds_adapters.lab.policy_spec import make_policy  # noqa: E402


@pytest.fixture(autouse=True)
def _explored(monkeypatch):
    """The policies that only the study knows are registered here and nowhere else."""
    from uds_core import registry

    monkeypatch.setattr(registry, "_POLICIES", dict(registry._POLICIES))
    sys.modules.pop("explored", None)
    import explored  # noqa: F401


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_a_grid_is_sound(file):
    for block in grid.blocks(file).values():
        cells = list(grid.cells(block))
        assert len(cells) == len(set(cells)) > 0
        assert block["equal"] in grid.EQUAL
        for cell in cells:
            assert cell.condition in ({*conditions.CONDITIONS, "weak"} if "weak" in block else conditions.CONDITIONS)
            spelled = grid.spelled(cell.policy, block.get("defaults", {}))
            provided = {"target": [1, 2]} if cell.task in tasks.POOLS else {}
            policy: Any = make_policy(spelled, keep=cell.keep, seed=cell.seed, provided=provided)  # raises if it cannot
            if cell.equal == "tokens" and cell.policy != "full":
                assert "tokens" in {field.name for field in dataclasses.fields(policy)}
        for pair in block.get("pairs", ()):
            assert set(pair) <= set(block["policies"])


def test_defaults_of_then_are_what_a_name_leaves_out():
    then = {"uds": {"distance": "mean", "weight": 2}}
    assert grid.spelled("uds", then) == "uds:distance=mean,weight=2"
    assert grid.spelled("uds:distance=nearest,dim=64", then) == "uds:distance=nearest,dim=64,weight=2"
    assert grid.spelled("random", then) == "random"
    block = grid.blocks(FOLDER / "grid.yaml")["headline"]
    policy: Any = make_policy(grid.spelled("uds", block["defaults"]), keep=0.25, seed=0)
    assert policy.distance == "mean"


def test_half_of_a_grid_is_disjoint_from_the_other():
    block = grid.blocks(FOLDER / "grid.yaml")["headline"]
    assert len({*list(grid.cells(block))[0::2]} & {*list(grid.cells(block))[1::2]}) == 0
    assert len(list(grid.cells(block))) == 180  # 2 tasks, 3 conditions, 6 policies, 5 seeds


RECORDS = [{"prompt": f"q{n} ", "completion": f"a{n}", "choices": [f"a{n}", f"b{n}"]} for n in range(600)]


def test_a_third_of_noisy_answers_is_wrong():
    made = list(conditions.noisy(RECORDS, random.Random(0)))
    wrong = [(old, new) for old, new in zip(RECORDS, made, strict=True) if new.get("wrong")]
    assert len(wrong) == pytest.approx(180, abs=40)
    assert all(new["completion"] in old["choices"] and new["completion"] != old["completion"] for old, new in wrong)
    assert all(new == old for old, new in zip(RECORDS, made, strict=True) if not new.get("wrong"))


def test_redundant_records_stand_up_to_five_times():
    made = list(conditions.redundant(RECORDS, random.Random(0)))
    counts = {answer: sum(row["completion"] == answer for row in made) for answer in {r["completion"] for r in made}}
    assert set(counts.values()) == {1, 2, 3, 4, 5}
    assert len(counts) == 200


POOL = [{"prompt": f"q{n}", "source": "abbb"[n % 4], "wanted": n % 4 == 0} for n in range(400)]


def test_a_stratified_pool_has_as_many_records_of_each_source():
    made = list(conditions.stratified(POOL, random.Random(0)))
    assert len(made) == len(POOL)
    assert sum(row["source"] == "a" for row in made) == 200
    assert {row["prompt"] for row in made if row["source"] == "a"} == {f"q{n}" for n in range(0, 400, 4)}


def test_inside_a_pool_are_the_wanted_records():
    assert list(conditions.inside(POOL, random.Random(0))) == [row for row in POOL if row["wanted"]]


def test_examples_of_a_target_are_not_in_the_pool(monkeypatch, tmp_path):
    made = {name: [{"prompt": f"{name} {n}", "completion": "x"} for n in range(150)] for name in tasks.POOLS.values()}
    for name, records in made.items():
        monkeypatch.setitem(tasks.TASKS, name, lambda _data, records=records: (records[:130], records[130:]))
    learnt, _ = tasks.read("pool_lima", data=tmp_path, seed=3)
    wanted = tasks.target("pool_lima", data=tmp_path, seed=3)
    assert len(wanted) == 100
    assert len(learnt) == 130 * len(made) - 100
    assert not {record["prompt"] for record in wanted} & {record["prompt"] for record in learnt}
    assert [record["source"] for record in wanted] == ["lima"] * 100
    file = conditions.write_target("pool_lima", data=tmp_path, folder=tmp_path, seed=3)
    assert file is not None
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == wanted
    assert conditions.write_target("gsm8k", data=tmp_path, folder=tmp_path, seed=3) is None


def run(policy, seed, loss, **more):
    cell = grid.Cell("gsm8k", "clean", 0.25, seed, policy)
    kept = {"tokens": {"trained": 10}, "distinct": 1.0, "wrong": 0.0}
    return {**cell._asdict(), "loss": loss, "accuracy": None, **kept, **more}


def runs(**losses):
    """Place -> policy -> seed -> run; losses by policy, seed by seed."""
    place = ("gsm8k", "clean", 0.25, "tokens")
    return {place: {p: {seed: run(p, seed, loss) for seed, loss in enumerate(of)} for p, of in losses.items()}}


def test_means_are_over_seeds_that_all_policies_have(tmp_path):
    block = {"tasks": {"gsm8k": ["clean"]}, "keep": [0.25], "seeds": [0, 1], "policies": ["random", "uds"]}
    rows = [run("random", 0, 1.0), run("uds", 0, 1.1), run("random", 1, 3.0)]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (place,) = analysis.read(tmp_path / "some.jsonl", {**block, "equal": "tokens"}).values()
    assert {policy: sorted(seeds) for policy, seeds in place.items()} == {"random": [0], "uds": [0]}
    assert analysis.read(tmp_path / "some.jsonl", {**block, "equal": "tokens", "policies": ["random", "full"]}) == {}


def test_differences_are_paired_by_seed():
    found = analysis.compare(runs(random=[1.0, 2.0, 3.0], uds=[1.1, 2.1, 3.13]))
    assert [(one.policy, one.rival, one.seeds) for one in found] == [("uds", "random", 3)]
    assert found[0].loss.mean == pytest.approx(0.11)
    assert found[0].loss.half_width == pytest.approx(4.303 * 0.01, rel=1e-3)  # t of 2 degrees; sd 0.0173 / sqrt 3
    assert found[0].loss.clear


def test_right_answers_are_compared_in_the_metric_that_all_runs_have():
    found = runs(random=[1.0, 2.0], uds=[1.1, 2.1])
    (policies,) = found.values()
    for policy, shares in {"random": [0.1, 0.2], "uds": [0.3, 0.5]}.items():
        for seed, share in enumerate(shares):
            policies[policy][seed]["exact_match"] = share
    (one,) = analysis.compare(found)
    assert one.answers is not None
    assert one.answers.mean == pytest.approx(0.25)
    assert "| exact match | against random |" in tables.report({"equal": "tokens"}, found, [one])
    policies["uds"][1]["exact_match"] = None
    assert analysis.compare(found)[0].answers is None


def test_p_is_corrected_for_all_comparisons():
    alone = analysis.compare(runs(random=[1.0, 2.0, 3.0], uds=[1.1, 2.1, 3.13]))[0].loss.p
    found = analysis.compare(
        runs(random=[1.0, 2.0, 3.0], uds=[1.1, 2.1, 3.13], longest=[1.3, 1.9, 3.1]), [("uds", "longest")]
    )
    assert len(found) == 3
    assert found[0].loss.p == pytest.approx(3 * alone)
    assert all(one.loss.p <= 1 for one in found)


def test_one_seed_says_nothing_of_chance():
    (one,) = analysis.compare(runs(random=[1.0], uds=[0.5]))
    assert not one.loss.clear
    assert one.loss.p == 1


@pytest.mark.parametrize(("loss", "seconds"), [(3.0, 0.0), (2.5, 5.0), (1.5, 15.0), (1.0, 20.0), (0.9, None)])
def test_seconds_to_a_loss(loss, seconds):
    curve = [[0, 0, 0.0, 3.0], [10, 40, 10.0, 2.0], [20, 80, 20.0, 1.0], [30, 120, 30.0, 1.2]]
    assert clock.reached(curve, loss) == (None if seconds is None else pytest.approx(seconds))


def timed(policy, seed, losses, *, seconds, tokens=100):
    """A run of 20 steps with three evaluations."""
    curve = [[10 * n, 40 * n, seconds * n / 2, loss] for n, loss in enumerate(losses)]
    spent = {"total": seconds, "preparation": 0.0}
    counts = {"trained": tokens, "forwarded_for_scoring": 0, "forwarded_for_training": 300}
    return run(policy, seed, losses[-1], steps=20, curve=curve, seconds=spent, tokens=counts)


def test_a_policy_pays_where_it_gains_more_than_it_costs(tmp_path):
    rows = [timed("random", seed, [3.0, 2.0, 1.0 + seed / 10], seconds=10) for seed in range(3)]
    rows += [timed("uds", seed, [3.0, 1.0, 0.5], seconds=12) for seed in range(3)]  # has random's loss at half
    rows += [timed("longest", seed, [3.0, 2.5, 2.0], seconds=5, tokens=50) for seed in range(3)]
    (tmp_path / "quality_some.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    block = {
        "tasks": {"gsm8k": ["clean"]},
        "keep": [0.25],
        "seeds": [0, 1, 2],
        "policies": ["random", "uds", "longest"],
    }
    (tmp_path / "some.yaml").write_text(json.dumps({**block, "equal": "tokens"}), encoding="utf-8")
    found = {one.policy: one for one in paying.pays(tmp_path / "some.yaml", tmp_path)}
    uds = found["uds"]
    assert uds.cost == pytest.approx(1.2)
    assert uds.gain == pytest.approx(20 / ((10 * 9.5 * 9) ** (1 / 3)), rel=1e-6)  # steps 10, 9.5 and 9 of 20
    assert uds.fraction == pytest.approx(1.2 / uds.gain)
    assert uds.fraction_p < 0.05
    assert uds.first == pytest.approx(uds.fraction)  # random comes down to its final loss at its end
    behind = found["longest"]
    assert behind.cost == pytest.approx(1.0)  # half of the seconds for half of the tokens
    assert behind.gain == pytest.approx(1.0)  # random has 2.0 at half of its tokens, which are as many
    assert (behind.fraction, behind.fraction_p) == (None, 1.0)
    assert "| `uds` | -0.600" in paying.table(list(found.values()))


def test_agreement_is_asked_only_where_something_is_known():
    clear = analysis.compare(runs(random=[1.0, 2.0, 3.0], uds=[1.1, 2.1, 3.1001]))
    unclear = analysis.compare(runs(random=[1.0, 2.0, 3.0], uds=[0.9, 2.2, 3.0]))
    above, below = (analysis.compare(runs(random=[1.0], uds=[loss])) for loss in (1.2, 0.8))
    assert [pair.agrees for pair in agree.matched(above, clear)] == [True]
    assert [pair.agrees for pair in agree.matched(below, clear)] == [False]
    assert [pair.agrees for pair in agree.matched(below, unclear)] == [True]
    assert agree.matched(above, []) == []


@pytest.mark.parametrize("file", sorted(FOLDER.glob("study*.yaml")), ids=lambda file: file.stem)
def test_a_small_grid_is_part_of_the_one_that_it_agrees_with_on_other_seeds(file):
    (block,) = grid.blocks(file).values()
    other = block["agrees_with"]
    theirs = list(grid.cells(grid.blocks(FOLDER / f"{other['grid']}.yaml")[other["block"]]))
    mine = list(grid.cells(block))
    assert {(cell.place, cell.policy) for cell in mine} <= {(cell.place, cell.policy) for cell in theirs}
    assert not {cell.seed for cell in mine} & {cell.seed for cell in theirs}


@pytest.mark.parametrize("file", [f for f in GRIDS if f.with_suffix(".md").is_file()], ids=lambda file: file.stem)
def test_committed_tables_are_those_of_the_committed_runs(file):
    assert file.with_suffix(".md").read_text(encoding="utf-8") == tables.text(file, RESULTS)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*_seconds.md")), ids=lambda file: file.stem)
def test_committed_costs_are_those_of_the_committed_runs(file):
    grid_of = file.with_name(f"{file.stem.removesuffix('_seconds')}.yaml")
    assert file.read_text(encoding="utf-8") == paying.text(grid_of, RESULTS)


def test_the_committed_table_of_the_papers_setting_is_that_of_its_runs():
    assert paper.TABLE.read_text(encoding="utf-8") == paper.text()
