"""Intervals cover what they should, whatever the number of seeds."""

import numpy as np
import pytest

from uds_adapters.lab.evaluation import intervals
from uds_adapters.lab.evaluation.intervals import over_seeds, paired


def drawn(generator, *, seeds, samples, of_seed, of_sample, rest):
    """Differences that are nothing but chance: a seed's, a sample's, and what belongs to neither."""
    return (
        of_seed * generator.normal(size=(seeds, 1))
        + of_sample * generator.normal(size=(1, samples))
        + rest * generator.normal(size=(seeds, samples))
    )


def test_the_mean_is_that_of_all_tokens():
    differences, weights = [[1.0, 3.0], [2.0, 4.0]], [1, 3]
    assert paired(differences, weights).mean == pytest.approx(((1 + 3) / 4 + (2 + 4) / 4) / 2)


@pytest.mark.parametrize("seeds", [2, 3, 8])
@pytest.mark.parametrize("parts", [(1, 0, 0), (0.3, 2, 2), (0, 0, 3)])
def test_no_difference_is_within_the_interval_in_about_19_of_20_cases(monkeypatch, seeds, parts):
    monkeypatch.setattr(intervals, "_DRAWS", 400)
    generator = np.random.default_rng(0)
    names = dict(zip(("of_seed", "of_sample", "rest"), parts, strict=True))
    cases = 150
    covered = 0
    for _ in range(cases):
        interval = paired(drawn(generator, seeds=seeds, samples=40, **names), np.ones(40))
        covered += interval.low <= 0 <= interval.high
    assert covered / cases >= 0.9  # 0.95 less three deviations of 150 cases


def test_intervals_are_not_merely_wide():
    generator = np.random.default_rng(1)
    differences = 1.0 + drawn(generator, seeds=5, samples=200, of_seed=0.1, of_sample=1, rest=1)
    interval = paired(differences, np.ones(200))
    assert 0 < interval.low < 1 < interval.high < 2
    assert interval.margin == pytest.approx((interval.high - interval.low) / 2)


def test_few_seeds_that_agree_tell_more_than_few_that_do_not():
    samples = np.zeros(30)
    agreeing, differing = ([[s + x for x in samples] for s in shifts] for shifts in ((0.9, 1.0, 1.1), (0.0, 1.0, 2.0)))
    assert paired(agreeing, samples + 1).low > 0 > paired(differing, samples + 1).low


def test_one_seed_has_an_interval_over_samples_alone():
    generator = np.random.default_rng(2)
    one = generator.normal(size=(1, 100))
    same = np.repeat(one, 3, 0)
    assert paired(one, np.ones(100)) == pytest.approx(paired(same, np.ones(100)))
    assert over_seeds([1.0]) is None


def test_over_seeds_is_as_wide_as_students():
    interval = over_seeds([1.0, 2.0, 3.0])
    assert interval is not None
    assert interval.mean == 2.0
    assert interval.margin == pytest.approx(4.303 / 3**0.5, rel=0.15)


def test_the_same_numbers_give_the_same_interval():
    differences = np.random.default_rng(3).normal(size=(3, 20))
    assert paired(differences, np.ones(20)) == paired(differences, np.ones(20))
