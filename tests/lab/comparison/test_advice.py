"""What a comparison advises to train with."""

from dataclasses import replace

import pytest

from tests.lab.comparison.test_verdict import against, summary
from uds_adapters.lab.comparison.advice import advice


def timed(policy, loss, seconds):
    return replace(summary(policy, loss), seconds={"total": seconds, "preparation": 0.0})


def said(*others, seeds=3):
    """Advice of random at 2.0 in 10 s, and of (policy, difference, margin, seconds)."""
    measured = {name: timed(name, 2.0 + gap, seconds) for name, gap, _, seconds in [("random", 0.0, 0, 10.0), *others]}
    return advice(measured, [against(name, "random", gap, margin, seeds=seeds) for name, gap, margin, _ in others])


def test_the_best_of_the_cheap_ones_that_are_better():
    text = said(("fresh", -0.1, 0.01, 10.2), ("predicted:entropy", -0.2, 0.01, 11.0), ("entropy", -0.3, 0.01, 24.0))
    assert text == "To train, take predicted:entropy: better than random, in 1.10 times its seconds."


def test_what_is_better_and_dear_has_to_show_that_it_pays():
    text = said(("fresh", -0.001, 0.01, 10.2), ("entropy", -0.3, 0.01, 24.0))
    assert text.startswith("To train, take fresh: no worse than random, in 1.02 times its seconds.")
    assert "entropy is better, in 2.4 times the seconds of random: `--budget seconds=120`" in text


@pytest.mark.parametrize("others", [[("uds", -0.001, 0.01, 20.0)], [("fresh", 0.1, 0.01, 10.2)]])
def test_random_where_nothing_is_better(others):
    assert said(*others) == "To train, take random: nothing here is better at its price."


def test_with_a_target_its_policy_comes_first():
    assert "take targeted" in said(("fresh", 0.0, 0.01, 10.0), ("targeted", 0.0, 0.01, 10.0))


def test_nothing_is_advised_of_one_seed_or_without_random_or_seconds():
    assert said(("fresh", -1.0, 0.01, 10.0), seeds=1) == ""
    assert advice({"uds": timed("uds", 1.0, 10.0)}, []) == ""
    assert (
        advice({"random": summary("random", 2.0), "uds": summary("uds", 1.0)}, [against("uds", "random", -1, 0.1)])
        == ""
    )
