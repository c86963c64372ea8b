"""The search, on losses that are known and on runs; its folder, and `uds tune`."""

import json
import math
import random
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from conftest import DATA, MODELS, shared
from typer.testing import CliRunner

optuna = pytest.importorskip("optuna")
from uds_adapters.lab.cli import app  # noqa: E402
from uds_adapters.lab.demo import scenario  # noqa: E402
from uds_adapters.lab.errors import LabError  # noqa: E402
from uds_adapters.lab.training.settings import Settings  # noqa: E402
from uds_adapters.lab.tune import plots, trials  # noqa: E402
from uds_adapters.lab.tune.halving import Halving, search  # noqa: E402
from uds_adapters.lab.tune.search_space import apply, read  # noqa: E402

SEARCH = "alpha=[auto,0,1],memory=16..1024:log,keep=[0.25,0.5]"
QUICK = ["--steps", 8, "--batch-size", 8, "--trials", 4, "--reduction", 2, "--rungs", 2, "--seeds", 2, "--threads", 1]


@dataclass
class Known:
    """Stands in for runs: the loss is a bowl over weight and memory, with noise of a given size."""

    bowl: float
    noise: float
    policy: str = "uds"
    settings: Settings = field(default_factory=Settings)
    made: list[Any] = field(default_factory=list)

    def __call__(self, point, *, share, seed, progress=lambda _: None):
        self.made.append((tuple(point.items()), share, seed))
        weight, memory = point.get("weight", 1.0), point.get("memory", 1024)
        at = (weight - 3.0) ** 2 + (math.log2(memory) - 7) ** 2
        draw = random.Random(f"{sorted(point.items())} {seed} {share}").gauss(0, self.noise)
        loss = 2.0 - 0.5 * share + self.bowl * at + draw
        progress(1.0)
        return {"loss": loss, "losses": [loss * 10] * 20, "heldout_tokens": [10] * 20}


def searched(known, tmp_path, *, halving=None, reported=lambda *_: None, text="weight=0..4,memory=16..4096:log"):
    space = read(text, policy="uds", settings=known.settings)
    return search(
        known, space, halving or Halving(trials=27, seeds=3), storage=tmp_path / "optuna.jsonl", progress=reported
    )


def test_it_comes_near_the_lowest_loss_and_says_so(tmp_path):
    outcome = searched(Known(bowl=0.05, noise=0.01), tmp_path)
    assert outcome.best.point["weight"] == pytest.approx(3.0, abs=1.5)
    assert 2**5 < outcome.best.point["memory"] < 2**9
    assert outcome.distinguishable
    assert "is more than noise" in outcome.verdict
    assert outcome.noise == pytest.approx(0.014, abs=0.012)  # of a difference of two runs


def test_it_does_not_take_noise_for_a_finding(tmp_path):
    """Five searches where nothing matters: a finding in each would be a lie, and in one is chance."""
    outcomes = [
        searched(Known(bowl=0.0, noise=0.05), tmp_path, halving=Halving(trials=9, seeds=3, seed=1000 * seed))
        for seed in range(5)
    ]
    assert sum(outcome.distinguishable for outcome in outcomes) <= 1


def test_halving_as_it_was_asked_for(tmp_path):
    known, reported = Known(bowl=0.05, noise=0.0), []
    halving = Halving(trials=18, reduction=3, rungs=3, seeds=2, seed=5)
    outcome = searched(known, tmp_path, halving=halving, reported=lambda rung, done: reported.append((rung, done)))
    runs = {rung: [] for rung in range(3)}
    for one in [*outcome.configurations, outcome.default]:
        for run in one.runs:
            runs[run["rung"]].append((one.number, run["seed"]))
    assert [len(runs[rung]) for rung in range(3)] == [halving.runs(rung) for rung in range(3)] == [19, 7, 6]
    assert {seed for _, seed in runs[0] + runs[1]} == {5}
    assert {seed for _, seed in runs[2]} == {6, 7}
    first = {one.number: one.runs[0]["loss"] for one in outcome.configurations}
    assert {number for number, _ in runs[1]} - {0} == set(sorted(first, key=first.__getitem__)[:6])
    assert {share for _, share, _ in known.made} == {1 / 9, 1 / 3, 1.0}
    assert [max(done for rung, done in reported if rung == r) for r in range(3)] == [19, 7, 6]


def test_a_search_is_repeated_exactly_and_its_journal_is_optunas(tmp_path):
    first, again = (searched(Known(bowl=0.05, noise=0.01), tmp_path) for _ in range(2))
    assert [one.point for one in first.configurations] == [one.point for one in again.configurations]
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "optuna.jsonl")))
    study = optuna.load_study(study_name="tune", storage=storage)
    assert study.best_trial.user_attrs["configuration"] == first.best.number
    assert len({trial.user_attrs["configuration"] for trial in study.trials}) == 27


def test_a_small_space_is_searched_once_and_not_again_and_again(tmp_path):
    outcome = searched(Known(bowl=0.05, noise=0.0), tmp_path, text="weight=[1,2,3]", halving=Halving(trials=18))
    assert sorted(one.point["weight"] for one in outcome.configurations) == [1, 2, 3]
    assert outcome.best.point["weight"] == 3


def test_the_default_is_no_proposal(tmp_path):
    """Its name would be taken for its own twice."""
    outcome = searched(Known(bowl=0.0, noise=0.1), tmp_path, text="keep=[0.125,0.25,0.5]", halving=Halving(trials=6))
    assert sorted(one.point["keep"] for one in outcome.configurations) == [0.125, 0.5]
    assert len({one.name for one in outcome.finalists}) == len(outcome.finalists)


def test_halving_checks_its_numbers():
    for option in ({"trials": 1}, {"reduction": 1}, {"rungs": 1}, {"seeds": 0}):
        with pytest.raises(LabError, match=f"`{next(iter(option))}` must be at least"):
            Halving(**option)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=48, heldout=8, texts=30, pretraining_steps=1)
    made = scenario.make(tmp_path_factory.mktemp("tune"), sizes=sizes, seed=0)
    return ["--model", made.model, "--data", made.data, "--eval-data", made.eval_data]


def uds(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    result = uds("tune", *arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("\u2502", " ").split())


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    """A search that was interrupted in its third run, and went on."""
    output = tmp_path_factory.mktemp("tune") / "out"
    real, calls = trials.train_once, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    options = [*source, *QUICK, "--search", SEARCH, "--learning-rate", 1e-3, "--output", output]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "train_once", interrupted)
        stopped = uds("tune", *options)
    said = " ".join(stopped.output.split())
    assert stopped.exit_code == 130, stopped.output
    assert f"The 2 finished runs are saved. Resume with: uds tune --resume {output}" in said
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").glob("*.json")}
    went_on = uds("tune", "--resume", output, "--json")
    assert went_on.exit_code == 0, went_on.output
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert json.loads(went_on.stdout)["verdict"] == read_json(output / "tune.json")["verdict"]
    return output


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_runs_train_on_equally_many_samples(folder):
    runs = [read_json(path) for path in (folder / "runs").glob("*.json")]
    assert len(runs) == 5 + 3 * 2
    for run in runs:
        amount = float(run["settings"]["budget"].removeprefix("samples="))
        assert amount in (8.0, 16.0)
        assert amount <= run["samples"] < amount + run["settings"]["keep"] * 8
        assert run["loss"] == pytest.approx(sum(run["losses"]) / sum(run["heldout_tokens"]))


def test_all_trials_are_written_down(folder):
    results = read_json(folder / "tune.json")
    assert len(results["configurations"]) == 4
    assert set(results["space"]) == {"alpha", "memory", "keep"}
    assert [len(row["losses"]) for row in results["finalists"]] == [2, 2, 2]
    settings = Settings(keep=0.25, batch_size=8, learning_rate=1e-3)
    for one in results["configurations"]:
        policy, changed = apply(one["values"], policy="uds", settings=settings)
        assert one["name"] == f"{policy}, keep {changed.keep:g}"
    assert (folder / "optuna.jsonl").is_file()


def test_the_best_is_a_configuration_of_train(folder, tmp_path):
    best, results = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8")), read_json(folder / "tune.json")
    assert (best["policy"], best["keep"]) == (results["best"]["policy"], results["best"]["keep"])
    assert "budget" not in best
    comment = " ".join(
        line.removeprefix("# ") for line in (folder / "best.yaml").read_text().splitlines() if "#" in line
    )
    assert results["verdict"] in comment
    trained = uds("train", "--config", folder / "best.yaml", "--steps", 2, "--output", tmp_path / "out")
    assert trained.exit_code == 0, trained.output


def test_the_page_is_whole(folder):
    text = (folder / "surface.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]*\s(src|href)=", text)
    assert text.count('class="plotly-graph-div"') == 3 + 2 + 2  # options, pairs, history and importances
    results = read_json(folder / "tune.json")
    assert all(f"<td>{row['name']}</td>" in text for row in results["finalists"])
    without = plots.page({**results, "noise": None})
    assert "nothing is known of the noise" in without


def test_what_a_search_that_goes_on_may_change(folder):
    assert "--keep, --learning-rate would make it another" in refused(
        "--resume", folder, "--keep", 0.5, "--learning-rate", 1
    )
    more = uds("tune", "--resume", folder, "--seeds", 3)
    assert more.exit_code == 0, more.output
    assert [len(row["losses"]) for row in read_json(folder / "tune.json")["finalists"]] == [3, 3, 3]


def test_wrong_input(source, tmp_path):
    options = [*source, *QUICK, "--output", tmp_path / "new"]
    for more, said in (
        (["--search", "alfa=0..1"], "uds has no option 'alfa'"),
        (["--budget", "candidates"], "`budget` candidates would let configurations that keep more train on more"),
        (["--budget", "minutes"], "`budget` must be one of"),
        (["--rungs", 4], "the shortest runs would have 1 steps"),
        (["--trials", 1], "`trials` must be at least 2"),
        (["--policy", "best"], "unknown policy 'best'"),
    ):
        assert said in refused(*options, *more), said
    assert not (tmp_path / "new").exists()
    without = [*source[:4], "--holdout", 0, *QUICK, "--output", tmp_path / "new"]
    assert "`holdout` must be more than 0" in refused(*without)


@pytest.mark.slow
def test_on_a_pretrained_model_and_real_data(tmp_path):
    model, data = shared(MODELS, "stories260k"), shared(DATA, "gsm8k")
    fields = ["--prompt-field", "question", "--completion-field", "answer", "--limit", 400, "--eval-limit", 32]
    options = ["--steps", 12, "--trials", 6, "--rungs", 2, "--seeds", 2, "--learning-rate", 1e-3, "--max-length", 256]
    result = uds(
        "tune", "--model", model, "--data", data / "train.jsonl", *fields, *options, "--output", tmp_path, "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["verdict"]
    assert all(loss > 0 for row in found["finalists"] for loss in row["losses"])
