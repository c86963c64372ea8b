"""What may be said of finalists."""

import numpy as np
import pytest

from uds_adapters.lab.tune import finalists


def run(losses):
    return {"loss": sum(losses) / (2 * len(losses)), "losses": list(losses), "heldout_tokens": [2] * len(losses)}


def runs(offset, *, spread, seeds=4, examples=40, draw=0):
    """Runs that share what seed and sample do, and differ by `offset` in the loss, with some noise of their own."""
    shared = np.random.default_rng(0).normal(6, 1, size=(seeds, examples))
    own = np.random.default_rng(draw).normal(0, spread, size=(seeds, 1))
    return [run(row) for row in shared + 2 * (offset + own)]


def judged(offset, *, spread=0.01, seeds=4, rivals=1):
    default = finalists.finalist("default", runs(0.0, spread=0.0, seeds=seeds), default=None, rivals=rivals)
    made = runs(offset, spread=spread, seeds=seeds, draw=3)
    other = finalists.finalist("other", made, default=runs(0.0, spread=0.0, seeds=seeds), rivals=rivals)
    return other, default


def test_a_clear_difference_is_told_from_none():
    other, default = judged(-0.2)
    assert finalists.best_of([default, other]) is other
    assert finalists.distinguishable(other)
    assert other.difference is not None
    assert other.difference.mean == pytest.approx(-0.2, abs=0.02)
    said = finalists.verdict(other, default, searched=9, rivals=1)
    assert "is more than noise" in said
    assert "4 seeds that the search had not seen" in said


def test_a_difference_within_the_noise_is_called_so():
    other, default = judged(-0.02, spread=0.05)
    assert other.loss < default.loss
    assert not finalists.distinguishable(other)
    assert "not distinguishable from none: keep the default" in finalists.verdict(other, default, searched=9, rivals=1)


def test_one_seed_tells_nothing_of_chance():
    other, default = judged(-0.2, seeds=1)
    assert not finalists.distinguishable(other)
    assert "One seed does not show" in finalists.verdict(other, default, searched=9, rivals=1)
    assert finalists.noise([other], default) is None


def test_the_default_may_be_the_best():
    other, default = judged(0.1)
    assert finalists.best_of([default, other]) is default
    assert finalists.best_of([default, default]) is default
    assert "None of the 9 configurations" in finalists.verdict(default, default, searched=9, rivals=2)


def test_intervals_are_wider_for_the_best_of_several():
    one, three = judged(-0.2)[0].difference, judged(-0.2, rivals=3)[0].difference
    assert one is not None
    assert three is not None
    assert three.mean == one.mean
    assert three.margin / one.margin == pytest.approx(2.394 / 1.960, abs=1e-3)  # normal quantiles at 1 - 0.025 / 3


def test_a_run_that_went_astray_loses_and_spoils_nothing():
    astray = {"loss": None, "losses": [None] * 40, "heldout_tokens": [2] * 40}
    default = finalists.finalist("default", runs(0.0, spread=0.0), default=None, rivals=1)
    made = [astray, *runs(-1.0, spread=0.0)[1:]]
    other = finalists.finalist("other", made, default=runs(0.0, spread=0.0), rivals=1)
    assert other.difference is None
    assert finalists.best_of([default, other]) is default
    assert finalists.noise([other], default) is None


def test_noise_is_the_spread_of_paired_differences():
    other, default = judged(-0.2, spread=0.05)
    own = np.random.default_rng(3).normal(0, 0.05, size=(4, 1))
    assert finalists.noise([other], default) == pytest.approx(float(own.std(ddof=1)), rel=1e-6)
