"""Means and spreads."""

import pytest

from uds_adapters.lab.comparison.statistics import summarise
from uds_adapters.lab.training.run_result import Evaluation, RunResult


def result(policy, seed, loss, *, selected=((0, 1),), **more):
    samples = sum(map(len, selected))
    return RunResult(
        policy=policy,
        seed=seed,
        steps=len(selected),
        candidates=8,
        samples=samples,
        tokens={"trained": 10 * samples},
        seconds={"scoring": 1.0 + seed, "total": 2.0},
        evaluations=[
            Evaluation(step=0, samples=0, tokens=0, seconds=0.0, loss=5.0),
            Evaluation(step=1, samples=samples, tokens=10 * samples, seconds=2.0, loss=loss, **more),
        ],
        selected=[list(step) for step in selected],
    )


def test_means_and_spread_over_seeds():
    runs = [result("random", 0, 2.0), result("uds", 0, 1.0), result("random", 1, 4.0), result("uds", 1, 1.0)]
    random, uds = summarise(runs)
    assert (random.policy, random.seeds, random.loss_before, random.loss) == ("random", 2, 5.0, 3.0)
    assert random.spread == pytest.approx(2**0.5)
    assert uds.spread == 0.0
    assert random.seconds == {"scoring": 1.5, "total": 2.0}
    assert random.tokens == {"trained": 20}
    (one,) = summarise(runs[:1])
    assert one.spread is one.interval is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_counted_and_spoils_no_other_number(bad):
    random, uds = summarise([result("random", 0, 2.0), result("uds", 0, bad), result("uds", 1, 1.0)])
    assert (random.loss, random.diverged) == (2.0, 0)
    assert (uds.loss, uds.spread, uds.interval, uds.diverged, uds.loss_before) == (None, None, None, 1, 5.0)


def test_the_interval_of_two_seeds_that_differ_is_wide():
    (random,) = summarise([result("random", 0, 2.0), result("random", 1, 4.0)])
    assert random.interval is not None
    low, high = random.interval
    assert low < -2 < 8 < high


def test_answers_are_means_where_they_were_asked_for():
    (both,) = summarise([result("uds", 0, 1.0, accuracy=0.5), result("uds", 1, 1.0, accuracy=1.0)])
    assert (both.accuracy, both.exact_match) == (0.75, None)


def test_flags_are_shares_of_what_was_trained_on():
    (summary,) = summarise(
        [result("uds", 0, 1.0, selected=((0, 1), (1, 3)))], flags={"wrong": [True, False, True, False]}
    )
    assert summary.flagged == {"wrong": 0.25}
