"""The cost model and its advice."""

import pytest

from uds_adapters.lab.errors import LabError
from uds_adapters.lab.profile.cost_model import Prediction, StepCost, advise


def predictions(sizes=(8, 16, 32), keeps=(0.125, 0.25, 0.5), *, look=0.3, forward=1.0, backward=2.0, fixed=0.1):
    """Seconds in proportion to samples: `look` to score one, `forward` and `backward` to train on it."""

    def step(samples, scored):
        return StepCost(
            collate=0.0, scoring=look * scored, forward=forward * samples, backward=backward * samples, update=fixed
        )

    return [
        Prediction(
            candidates=size,
            keep=keep,
            kept=int(size * keep),
            selecting=step(size * keep, size),
            full=step(size, 0),
            random=step(size * keep, 0),
        )
        for size in sizes
        for keep in keeps
    ]


def test_the_cost_model():
    (one,) = predictions([8], [0.25], look=0.5, fixed=1.0)
    assert one.selecting.total == pytest.approx(8 * 0.5 + 2 * 3.0 + 1.0)
    assert one.full.total == pytest.approx(8 * 3.0 + 1.0)
    assert one.of_full == pytest.approx(11 / 25)
    assert one.of_random == pytest.approx(11 / 7)
    assert one.scoring_share == pytest.approx(4 / 11)


def test_cheap_scoring_keeps_as_little_as_leaves_half_of_the_step_to_training():
    advice = advise(predictions(look=0.3))  # of 8: 2.4 to score; 3, 6 or 12 to train
    assert advice.pays
    assert (advice.candidates, advice.keep) == (8, 0.125)
    assert advise(predictions(look=0.6)).keep == 0.25
    assert "--batch-size 8 --keep 0.125" in advice.words


def test_more_candidates_where_the_fixed_part_is_large():
    assert advise(predictions(fixed=3.0)).candidates == 32


def test_scoring_that_takes_most_of_a_step_keeps_more():
    advice = advise(predictions(look=1.6, keeps=(0.125, 0.25)))  # 4 a candidate at most, against 6
    assert advice.pays
    assert advice.keep == 0.25
    assert "% of it goes into choosing" in advice.words


def test_why_smaller_fractions_are_passed_over_and_what_is_needed():
    advice = advise(predictions([8], look=1.1))
    assert advice.keep == 0.5
    assert "Smaller fractions were passed over" in advice.words
    assert "(74% with --keep 0.125 and 59% with --keep 0.25)" in advice.words
    assert "H = 1.7 times as long as a step on 4 random samples" in advice.words
    assert "with 42% fewer trained tokens" in advice.words
    assert "passed over" not in advise(predictions([8], look=0.3)).words


@pytest.mark.parametrize(
    ("costs", "reason"),
    [
        ({"look": 1.1, "backward": 0.3}, "backward pass is cheap here, 0.3 times the forward pass"),
        ({"look": 0.1, "fixed": 2000.0}, "batches this small leave little to save"),
        ({"look": 3.0}, "Scoring a candidate costs 1.0 times what training on it would"),
    ],
)
def test_what_will_not_pay_is_told_with_its_reason(costs, reason):
    advice = advise(predictions(**costs))
    assert not advice.pays
    assert "Selection will not save time here" in advice.words
    assert reason in advice.words


def test_nothing_to_advise_on():
    with pytest.raises(LabError, match="nothing to advise on"):
        advise([])
