"""Sentences that do not say more than the numbers."""

from dataclasses import replace

from uds_adapters.lab.comparison.statistics import Comparison, Summary
from uds_adapters.lab.comparison.verdict import verdict
from uds_adapters.lab.training.budget import Kind


def summary(policy, loss, *, samples=100.0, tokens=1000.0):
    return Summary(
        policy=policy,
        seeds=3,
        loss_before=None if loss is None else 5.0,
        loss=loss,
        spread=0.01,
        samples=samples,
        tokens={"trained": tokens},
        seconds={},
        flagged={},
    )


def against(policy, rival, difference, margin, *, metric="loss", seeds=3, budget: Kind = "tokens"):
    better = None
    if abs(difference) > margin and seeds > 1:
        better = "policy" if (difference < 0) == (metric == "loss") else "rival"
    return Comparison(
        policy=policy,
        rival=rival,
        metric=metric,
        difference=difference,
        low=difference - margin,
        high=difference + margin,
        seeds=seeds,
        budget=budget,
        better=better,
    )


def test_better_than_one_and_not_distinguishable_from_another():
    text = verdict(
        [summary("random", 2.08), summary("longest", 2.051), summary("uds", 2.05)],
        [
            against("uds", "random", -0.03, 0.01),
            against("longest", "random", -0.029, 0.01),
            against("uds", "longest", -0.001, 0.01),
        ],
    )
    assert text == (
        "uds reached the lowest held-out loss, 2.050. "
        "uds is better than random by 0.030 ± 0.010 nats at equal tokens; "
        "not distinguishable from longest (0.001 ± 0.010 nats, ahead) at equal tokens. "
        "longest is better than random by 0.029 ± 0.010 nats at equal tokens."
    )


def test_worse():
    text = verdict([summary("random", 2.0), summary("uds", 2.1)], [against("uds", "random", 0.1, 0.02)])
    assert "random reached the lowest" in text
    assert "uds is worse than random by 0.100 ± 0.020 nats at equal tokens." in text


def test_training_on_more_is_said():
    found = [against("full", "random", -0.5, 0.1, budget="candidates")]
    text = verdict([summary("random", 2.0), summary("full", 1.5, samples=400.0)], found)
    assert "better than random by 0.500 ± 0.100 nats at equal candidates, on 4.0 times the samples." in text
    longer = verdict(
        [summary("random", 2.0), summary("longest", 1.5, tokens=1500)], [against("longest", "random", -0.5, 0.1)]
    )
    assert "on 1.5 times the tokens" in longer


def test_answers_have_sentences_of_their_own():
    found = [
        against("uds", "random", -0.1, 0.02),
        against("uds", "random", 0.031, 0.012, metric="accuracy"),
        against("uds", "random", 0.0, 0.01, metric="exact_match"),
    ]
    text = verdict([summary("random", 2.1), summary("uds", 2.0)], found)
    assert "In accuracy, uds is better than random by 3.1 ± 1.2 points at equal tokens." in text
    assert "In exact matches, uds is not distinguishable from random (0.0 ± 1.0 points)" in text


def test_who_diverged_is_named_and_not_ranked():
    astray = replace(summary("uds", None), diverged=1)
    said = verdict(
        [summary("random", 2.0), astray, summary("longest", 1.9)], [against("longest", "random", -0.1, 0.01)]
    )
    assert said.startswith("longest reached the lowest held-out loss, 1.900. uds diverged under 1 of 3 seeds")
    assert "lower the learning rate" in said
    assert "uds is" not in said
    assert verdict([astray]).startswith("uds diverged under 1 of 3 seeds")
    assert "uds diverged" in verdict([summary("random", 2.0), astray])


def test_one_seed_claims_nothing():
    found = [against("uds", "random", -1.0, 0.1, seeds=1)]
    text = verdict([summary("random", 3.0), summary("uds", 2.0)], found)
    assert "uds is 1.000 nats ahead of random at equal tokens." in text
    assert "none is called better" in text
    assert "uds is better" not in text


def test_many_policies_are_counted():
    names = [f"p{n}" for n in range(7)]
    found = [against(name, "random", 0.1 * (n - 5), 0.05) for n, name in enumerate(names)]
    text = verdict([summary("random", 2.5), *(summary(name, 2.0 + 0.1 * n) for n, name in enumerate(names))], found)
    assert text.count("nats") == 4
    assert "Of the other 3, 1 are better than random, 1 are worse, and 1 cannot be told from it." in text


def test_without_random_or_held_out_data_or_others():
    assert "Without `random`" in verdict([summary("full", 1.0), summary("uds", 3.0)])
    assert verdict([summary("uds", 3.0)]) == "uds went from 5.000 to 3.000."
    assert "Nothing was held out" in verdict([summary("uds", None), summary("random", None)])


def test_predicted_scores_come_with_their_rank_correlation():
    predicted = replace(summary("predicted:entropy", 2.0), correlation=0.714)
    text = verdict([summary("random", 2.1), predicted], [against("predicted:entropy", "random", -0.1, 0.02)])
    assert text.endswith("The scores that predicted:entropy predicts have a rank correlation of 0.71 with exact ones.")
    assert "rank correlation" not in verdict([summary("random", 2.1), summary("entropy", 2.0)])
