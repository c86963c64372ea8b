"""Budgets: runs that spend alike end alike, however many steps that takes."""

import pytest
from lab_runs import trained

from uds_adapters.lab.data.candidate_order import CandidateOrder
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.training.budget import RunBudget, learning_rate
from uds_adapters.lab.training.settings import Settings


@pytest.mark.parametrize(
    ("text", "meant"),
    [("candidates", ("candidates", None)), ("tokens=50_000", ("tokens", 5e4)), (" seconds = 1.5 ", ("seconds", 1.5))],
)
def test_a_budget_in_words(text, meant):
    assert RunBudget.parse(text) == meant


@pytest.mark.parametrize("text", ["steps", "tokens=", "tokens=many", "samples=0", "samples=-1", "tokens=inf"])
def test_what_is_no_budget(text):
    with pytest.raises(LabError, match="budget"):
        RunBudget.parse(text)


def test_seconds_need_an_amount():
    with pytest.raises(LabError, match="seconds=120"):
        Settings(budget="seconds")


def test_what_chance_would_spend(task):
    order = CandidateOrder(len(task.train), batch_size=8, seed=0).first(32)
    amounts = {k: RunBudget.of(k, order=order, train=task.train, keep=0.25).amount for k in ("candidates", "samples")}
    assert amounts == {"candidates": 32, "samples": 8}
    trained_on = sum(label != -100 for index in order for label in task.train[index]["labels"][1:])
    assert RunBudget.of("tokens", order=order, train=task.train, keep=0.25).amount == trained_on / 4
    all_tokens = sum(len(task.train[index]["input_ids"]) for index in order)
    assert RunBudget.of("processed", order=order, train=task.train, keep=0.25).amount == all_tokens / 4


def test_the_learning_rate_rises_and_falls_to_nothing():
    rates = [learning_rate(spent / 100) for spent in range(101)]
    assert max(rates) == rates[5] == pytest.approx(1.0)
    assert rates[0] == rates[100] == 0.0 == learning_rate(1.3)
    assert rates[:6] == sorted(rates[:6])
    assert rates[5:] == sorted(rates[5:], reverse=True)


def settings(budget):
    return Settings(keep=0.25, batch_size=8, steps=6, learning_rate=1e-3, eval_every=3, budget=budget)


@pytest.mark.parametrize("policy", ["full", "maxloss", "cascade:warmup=1,shortlisted=0.5"])
def test_equal_work_counts_prompts_and_scoring(task, tmp_path, policy):
    order = CandidateOrder(len(task.train), batch_size=8, seed=0).first(48)
    amount = RunBudget.of("processed", order=order, train=task.train, keep=0.25).amount
    result = trained(task, policy, tmp_path, settings=settings("processed"))
    trained_on = sum(len(task.train[i]["input_ids"]) for step in result.selected for i in step)
    assert result.tokens["forwarded_for_training"] == trained_on
    scored = result.tokens["forwarded_for_scoring"]
    seen = result.tokens["candidates"]
    assert scored == (0 if policy == "full" else seen) or (policy[0] == "c" and 0.4 * seen < scored < seen)
    last = sum(len(task.train[i]["input_ids"]) for i in result.selected[-1])
    assert amount <= trained_on + scored / 3 < amount + last + 8 * max(len(one["input_ids"]) for one in task.train) / 3


@pytest.mark.parametrize("policy", ["full", "longest", "shortest"])
def test_equal_tokens(task, tmp_path, policy):
    order = CandidateOrder(len(task.train), batch_size=8, seed=0).first(48)
    amount = RunBudget.of("tokens", order=order, train=task.train, keep=0.25).amount
    done = []
    result = trained(task, policy, tmp_path, settings=settings("tokens"), after_step=done.append)
    last = sum(label != -100 for i in result.selected[-1] for label in task.train[i]["labels"][1:])
    assert amount <= result.tokens["trained"] < amount + last
    assert result.evaluations[-1].tokens == result.tokens["trained"]
    assert done[-1] == 6
    assert result.steps == len(done) == len(result.selected)
    assert {"full": result.steps < 6, "longest": result.steps < 6, "shortest": result.steps > 6}[policy]


def test_equal_samples(task, tmp_path):
    full, random = (trained(task, policy, tmp_path, settings=settings("samples")) for policy in ("full", "random"))
    assert (random.samples, random.steps) == (12, 6)
    assert (full.samples, full.steps) == (16, 2)


def test_equal_seconds(task, tmp_path):
    result = trained(task, "random", tmp_path, settings=settings("seconds=0.3"))
    assert result.seconds["total"] >= 0.3
    assert result.steps >= 1
    assert len(result.evaluations) >= 2
