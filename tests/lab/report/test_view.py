"""Data of the page: means, bands, quantiles, overlap, and limits on their size."""

import json
from itertools import pairwise
from statistics import fmean, stdev

import pytest
import reports

from uds_adapters.audit import Audit
from uds_adapters.lab.report import choices, records
from uds_adapters.lab.report.curves import curves
from uds_adapters.lab.report.folders import read
from uds_adapters.lab.report.scores import Scores
from uds_adapters.lab.report.view import view


def run(policy="uds", seed=0, *, losses=(3.0, 2.0, 1.0), step=5, selected=(), audit=None):
    points = [
        {"step": step * n, "samples": 10 * n, "tokens": 100 * n, "seconds": 0.5 * n, "loss": loss, "accuracy": None}
        for n, loss in enumerate(losses)
    ]
    return {
        "policy": policy,
        "seed": seed,
        "steps": step * (len(losses) - 1),
        "evaluations": points,
        "selected": list(selected),
        "audit": audit,
    }


def record(length, *, duplicate_of=None, wrong=False):
    return {
        "line": length,
        "text": "t" * length,
        "length": length,
        "trained": 1,
        "flags": {"wrong": wrong},
        "duplicate_of": duplicate_of,
    }


def test_a_curve_is_the_mean_and_its_band_a_standard_deviation():
    made = curves([run(losses=(3.0, 2.0)), run(seed=1, losses=(3.0, 1.0))], ["uds"])
    assert made["along"] == ["samples", "tokens", "seconds"]
    assert made["metrics"] == ["loss"]
    end = made["policies"][0]["mean"][-1]
    assert end["samples"] == 10
    assert end["loss"]["mean"] == fmean([2.0, 1.0])
    assert end["loss"]["high"] - end["loss"]["mean"] == pytest.approx(stdev([2.0, 1.0]))


def test_one_seed_has_no_band():
    assert curves([run()], ["uds"])["policies"][0]["mean"][1]["loss"] == {"mean": 2.0, "low": None, "high": None}


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_a_run_that_diverged_ends_where_its_numbers_do(bad):
    made = curves([run(losses=(3.0, 2.0, bad)), run(seed=1, losses=(3.0, 2.5, 1.0)), run("random")], ["uds", "random"])
    uds, random = made["policies"]
    assert [len(seed["points"]) for seed in uds["seeds"]] == [2, 3]
    assert [point["loss"]["mean"] for point in uds["mean"]] == [3.0, 2.25]
    assert len(random["mean"]) == 3
    nothing = curves([run(losses=(bad, bad)), run("random")], ["uds", "random"])
    assert nothing["metrics"] == [] or [one["policy"] for one in nothing["policies"]] == ["random"]


def test_runs_of_different_lengths_are_averaged_at_equal_parts():
    made = curves([run(losses=(4.0, 2.0, 0.0)), run(seed=1, losses=(4.0, 0.0), step=4)], ["uds"])
    assert [point["loss"]["mean"] for point in made["policies"][0]["mean"]] == [4.0, 2.0, 0.0]
    assert made["policies"][0]["mean"][-1]["samples"] == 15


def test_without_held_out_data_there_is_no_curve():
    assert curves([run(losses=())], ["uds"]) == {"along": [], "metrics": [], "policies": []}


def test_overlap_is_of_equal_seeds_and_on_the_diagonal_of_others():
    made = choices.choices(
        [
            run("a", 0, selected=[[0, 1], [2]]),
            run("b", 0, selected=[[1, 2], [3]]),
            run("a", 1, selected=[[0, 1, 2]]),
            run("b", 1, selected=[[7]]),
        ],
        9,
        offered={},
    )
    assert choices.overlap(made, ["a", "b"]) == [[1.0, 0.25], [0.25, 0.0]]
    assert choices.overlap(made[:1], ["a"]) == [[None]]


def test_the_rest_was_a_candidate_where_that_is_known():
    offered, unknown = choices.choices(
        [run(selected=[[1]]), run(seed=1, selected=[[1]])], 5, offered={("uds", 0): {1, 2}}
    )
    assert offered.rest == {2}
    assert unknown.rest == {0, 2, 3, 4}


def test_statistics_tell_the_chosen_from_the_rest():
    data = [record(10), record(20, duplicate_of=0, wrong=True), record(60)]
    made = choices.choices([run(selected=[[0, 1]])], 3, offered={})
    chosen, rest = choices.statistics(made, data, ["uds"])
    assert chosen["length"] == 15
    assert chosen["duplicates"] == chosen["with_original"] == chosen["flag:wrong"] == 0.5
    assert (rest["records"], rest["length"], rest["duplicates"]) == (1, 60, 0)


def test_lengths_are_shares_that_add_up():
    data = [record(length) for length in range(5, 205)]
    made = choices.choices([run(selected=[list(range(50))])], 200, offered={})
    shown = choices.lengths(made, data, ["uds"])
    assert shown["longest"] == 204
    for kind in ("chosen", "rest"):
        assert sum(shown["policies"][0][kind]) == pytest.approx(1)
    assert shown["policies"][0]["chosen"][-1] == 0 < shown["policies"][0]["rest"][-1]


def test_lengths_that_are_all_the_same_are_one_bar():
    made = choices.choices([run(selected=[[0]])], 3, offered={})
    assert choices.lengths(made, [record(7)] * 3, ["uds"])["policies"][0]["chosen"] == [1.0]


def test_quantiles_of_an_audit(tmp_path):
    with Audit(tmp_path / "a.jsonl") as audit:
        for step in range(2):
            audit.record(step, [4, 5, 6, 7], {"score": [10.0 + step, 20.0, None, 40.0]}, [3])
    scores = Scores()
    scores.add([run(losses=(1.0, 1.0), step=2, audit=tmp_path / "a.jsonl")], after=lambda: None)
    points = scores.quantiles()["uds"]["score"]
    assert [point["step"] for point in points] == [0, 1]
    assert points[0]["chosen"] == [20.0, 20.0, 20.0]  # above the median of 10, 20 and 40
    assert points[1]["rest"] == pytest.approx([-8.1, -4.5, -0.9])
    assert scores.offered == {("uds", 0): {4, 5, 6, 7}}


def test_long_audits_are_drawn_from(tmp_path):
    with Audit(tmp_path / "a.jsonl") as audit:
        for step in range(700):
            audit.record(step, None, {"score": list(range(100))}, [99])
    scores = Scores()
    scores.add([run(losses=(1.0, 1.0), step=700, audit=tmp_path / "a.jsonl")], after=lambda: None)
    points = scores.quantiles()["uds"]["score"]
    assert len(points) <= 60
    assert all(abs(point["rest"][1] + 0.5) < 8 for point in points)  # 400 of 1,188 values: standard error 1.8


def test_a_missing_audit_is_noted(tmp_path):
    folder = reports.write(tmp_path / "one", records=40, steps=4)
    next((folder / "runs").glob("longest*seed1*")).unlink()
    made = view(read(folder), name="one")
    assert "longest-seed1.audit.jsonl is missing" in made["notes"][0]
    assert set(made["scores"]) == {"longest", "uds:alpha=auto"}


def test_many_records_are_thinned_out_evenly_and_those_of_the_map_stay():
    data = [record(n + 1) for n in range(10_000)]
    results = {
        "records": data,
        "runs": [run(selected=[[3, 3, 9_999]])],
        "map": {"x": [0.5], "y": [0.25], "record": [3]},
    }
    made = records.listed(results, ["uds"])
    lines = [row["line"] for row in made["records"]["rows"]]
    assert len(set(lines)) == records.LIMIT
    assert lines == sorted(lines)
    assert max(after - before for before, after in pairwise(lines)) <= 6
    assert made["records"]["total"] == 10_000
    assert max(len(row["text"]) for row in made["records"]["rows"]) == 400
    [point] = made["map"]
    row = made["records"]["rows"][point["row"]]
    assert (row["line"], row["chosen"]) == (4, [2])


def test_the_verdict_is_shown_sentence_by_sentence(tmp_path):
    results = read(reports.write(tmp_path / "one", records=40, steps=4))
    made = view({**results, "verdict": "uds reached 3.985. It is better."}, name="one")
    assert made["verdict"] == ["uds reached 3.985.", "It is better."]


def test_of_a_long_path_the_end_is_shown_and_the_whole_is_in_the_configuration(tmp_path):
    results = read(reports.write(tmp_path / "one", records=40, steps=4))
    made = view({**results, "configuration": {"model": "/a/b/models/small", "limit": None}}, name="one")
    assert made["facts"] == [["model", "models/small"]]
    assert made["configuration"] == [["model", "/a/b/models/small"], ["limit", "-"]]


@pytest.mark.parametrize("missing", ["comparisons", "records", "map", "versions", "configuration", "verdict"])
def test_parts_may_be_missing(tmp_path, missing):
    results = read(reports.write(tmp_path / "one", records=40, steps=4))
    json.dumps(view({**results, missing: None}, name="one"), allow_nan=False)
    del results[missing]
    json.dumps(view(results, name="one"), allow_nan=False)
