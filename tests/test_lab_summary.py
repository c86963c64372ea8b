"""Means, spreads, and a sentence that does not say more than they do."""

import pytest

from uds_adapters.lab.run import Evaluation, RunResult
from uds_adapters.lab.summary import summarise, verdict


def result(policy, seed, loss, *, selected=((0, 1),)):
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
            Evaluation(step=1, samples=samples, tokens=10 * samples, seconds=2.0, loss=loss),
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
    assert summarise(runs[:1])[0].spread is None


def test_flags_are_shares_of_what_was_trained_on():
    (summary,) = summarise(
        [result("uds", 0, 1.0, selected=((0, 1), (1, 3)))], flags={"wrong": [True, False, True, False]}
    )
    assert summary.flagged == {"wrong": 0.25}


def said(*runs):
    return verdict(summarise(list(runs)))


def test_a_difference_beyond_the_spread():
    runs = [result(p, s, loss + 0.1 * s) for p, loss in (("random", 3.0), ("uds", 2.0)) for s in (0, 1)]
    assert "uds reached the lowest held-out loss, 2.050." in said(*runs)
    assert "uds is better by 1.000, which exceeds the spread over seeds (0.071)" in said(*runs)


def test_a_difference_within_the_spread():
    runs = [result(p, s, loss + s) for p, loss in (("random", 3.0), ("uds", 3.1)) for s in (0, 1)]
    assert "random reached the lowest" in said(*runs)
    assert "uds is worse by 0.100, which does not exceed the spread" in said(*runs)


def test_one_seed_claims_nothing():
    assert "how much of that is chance" in said(result("random", 0, 3.0), result("uds", 0, 2.0))


def test_training_on_more_is_mentioned_and_not_compared_with_random():
    text = said(result("full", 0, 1.0, selected=((0, 1, 2, 3),)), result("random", 0, 3.0))
    assert "2.0 times as many samples" in text
    assert "full is better" not in text


def test_without_random_or_held_out_data():
    assert "Without `random`" in said(result("full", 0, 1.0), result("uds", 0, 3.0))
    assert said(result("uds", 0, 3.0)) == "uds went from 5.000 to 3.000."
