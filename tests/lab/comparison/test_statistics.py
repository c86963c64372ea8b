"""Policies against their rivals, paired by seed and sample."""

import numpy as np
import pytest

from uds_adapters.lab.comparison.statistics import comparisons
from uds_adapters.lab.evaluation.heldout import Measured
from uds_adapters.lab.evaluation.intervals import paired
from uds_adapters.lab.training.run_result import RunResult

SAMPLES = 40
TOKENS = list(range(1, SAMPLES + 1))


def result(policy, seed, losses, answers=None):
    measured = None if losses is None else Measured(losses=list(losses), tokens=TOKENS, answers=answers or {})
    return RunResult(
        policy=policy,
        seed=seed,
        steps=1,
        candidates=8,
        samples=2,
        tokens={},
        seconds={},
        evaluations=[],
        selected=[],
        measured=measured,
    )


def losses(seed, *, better=0.0):
    """What a seed and its samples have in common, and a little of its own."""
    generator = np.random.default_rng(seed)
    common = 3.0 + np.random.default_rng(99).normal(size=SAMPLES) + 0.3 * generator.normal()
    return (common - better + 0.01 * generator.normal(size=SAMPLES)) * np.array(TOKENS)


def runs(*policies, seeds=(0, 1, 2), **betters):
    return [result(p, s, losses(s, better=betters.get(p, 0.0))) for s in seeds for p in policies]


def test_every_policy_against_every_rival_once():
    found = comparisons(runs("uds", "random", "longest", "full"), budget="tokens")
    assert [(one.policy, one.rival) for one in found] == [
        ("uds", "random"),
        ("longest", "random"),
        ("full", "random"),
        ("uds", "longest"),
        ("full", "longest"),
    ]
    assert {(one.metric, one.seeds, one.budget) for one in found} == {("loss", 3, "tokens")}
    assert comparisons(runs("uds", "full"), budget="tokens") == []


def test_numbers_are_those_of_the_bootstrap():
    every = runs("uds", "random", uds=0.1)
    (one,) = comparisons(every, budget="samples")
    found = [run.measured.losses for run in every if run.measured is not None]
    differences = [
        [a - b for a, b in zip(mine, theirs, strict=True)] for mine, theirs in zip(found[::2], found[1::2], strict=True)
    ]
    assert (one.difference, one.low, one.high) == paired(differences, TOKENS)
    assert one.difference == pytest.approx(-0.1)
    assert (one.better, one.margin < 0.05) == ("policy", True)  # though seeds differ by 0.3 and samples by 1


def test_who_is_better():
    assert comparisons(runs("uds", "random", uds=-0.1), budget="samples")[0].better == "rival"
    assert comparisons(runs("uds", "random"), budget="samples")[0].better is None


def test_who_diverged_is_compared_with_nobody():
    """Under one seed is enough: the others alone would flatter it."""
    made = runs("random", "uds", "longest")
    made[-2] = result("uds", 2, [float("nan")] * SAMPLES)
    assert {(one.policy, one.rival) for one in comparisons(made, budget="tokens")} == {("longest", "random")}


def test_one_seed_calls_nobody_better():
    (one,) = comparisons(runs("uds", "random", seeds=(0,), uds=1.0), budget="samples")
    assert (one.seeds, one.better) == (1, None)
    assert one.high < 0


def test_answers_are_compared_the_other_way_round():
    def answers(right):
        return {"accuracy": [place < right for place in range(SAMPLES)]}

    every = [result(p, s, losses(s), answers(n)) for s in range(3) for p, n in (("uds", 38), ("random", 8))]
    loss, accuracy = comparisons(every, budget="samples")
    assert (loss.metric, accuracy.metric) == ("loss", "accuracy")
    assert accuracy.difference == pytest.approx(30 / 40)
    assert accuracy.better == "policy"


def test_only_common_seeds_and_measured_runs_count():
    partly = [*runs("uds", "random"), *runs("uds", seeds=(3,)), result("full", 0, None)]
    (one,) = comparisons(partly, budget="samples")
    assert one.seeds == 3
