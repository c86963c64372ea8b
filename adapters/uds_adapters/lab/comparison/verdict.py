"""Verdict of a comparison in sentences that claim no more than its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .advice import advice
from .statistics import Comparison, Summary

__all__ = ["verdict"]

_SENTENCES = 4  # policies with a sentence each; the others are counted
_IN = {"loss": "", "accuracy": "In accuracy, ", "exact_match": "In exact matches, "}


def verdict(summaries: Sequence[Summary], found: Sequence[Comparison] = (), /) -> str:
    """Return sentences on the lowest loss, each policy against random, differences that are not clear, what to take.

    Parameters
    ----------
    summaries
        Of `summarise`.
    found
        Of `comparisons`.
    """
    measured = {summary.policy: summary for summary in summaries if summary.loss is not None}
    astray = [_astray(summary) for summary in summaries if summary.diverged]
    if not measured:
        return " ".join(astray) or "Nothing was held out, so no policy can be called better."
    ranked = sorted(measured.values(), key=_loss)
    if len(ranked) == 1:
        alone = f"{ranked[0].policy} went from {_number(ranked[0].loss_before)} to {_number(ranked[0].loss)}."
        return " ".join([alone, *astray, *_predictions(ranked)])
    said = [f"{ranked[0].policy} reached the lowest held-out loss, {_number(ranked[0].loss)}.", *astray]
    if "random" not in measured:
        said.append("Without `random` among the policies, it is not known what the choice itself is worth.")
    compared = [summary.policy for summary in ranked if any(one.policy == summary.policy for one in found)]
    said += [
        _sentence(policy, metric, found, measured) for policy in compared[:_SENTENCES] for metric in _metrics(found)
    ]
    if compared[_SENTENCES:]:
        said.append(_counted(compared[_SENTENCES:], found))
    if found and found[0].seeds == 1:
        said.append("That is one seed: what another would give is not known, so none is called better.")
    return " ".join(filter(None, [*said, *_predictions(ranked), advice(measured, found)]))


def _predictions(summaries: Sequence[Summary]) -> list[str]:
    """Of policies that predict scores, how well these rank."""
    return [
        f"The scores that {one.policy} predicts have a rank correlation of {one.correlation:.2f} with exact ones."
        for one in summaries
        if one.correlation is not None
    ]


def _astray(summary: Summary) -> str:
    """Of a policy that ended in no number."""
    return (
        f"{summary.policy} diverged under {summary.diverged} of {summary.seeds} seeds, its held-out loss is no number, "
        "so it is compared with none: lower the learning rate."
    )


def _metrics(found: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(one.metric for one in found))


def _sentence(policy: str, metric: str, found: Sequence[Comparison], measured: Mapping[str, Summary]) -> str:
    """Of one policy in one metric, against all its rivals."""
    mine = [one for one in found if (one.policy, one.metric) == (policy, metric)]
    parts = [_phrase(one) + _spent(one, measured[policy], measured[one.rival]) for one in mine]
    return f"{_IN[metric]}{policy} is {'; '.join(parts)}."


def _phrase(one: Comparison) -> str:
    scale, digits, unit = (1, 3, " nats") if one.metric == "loss" else (100, 1, " points")
    size, margin = (f"{scale * abs(value):.{digits}f}" for value in (one.difference, one.margin))
    by = f"{size} ± {margin}{unit}"
    if one.better is not None:
        return f"{'better' if one.better == 'policy' else 'worse'} than {one.rival} by {by}"
    side = "ahead" if (one.difference < 0) == (one.metric == "loss") else "behind"
    if one.seeds > 1:
        return f"not distinguishable from {one.rival} ({by}{f', {side}' if one.difference else ''})"
    return f"{size}{unit} {side}{' of' if side == 'ahead' else ''} {one.rival}"


def _spent(one: Comparison, mine: Summary, theirs: Summary) -> str:
    """At equal what; and, where the policy trained on more or less of something else, how much."""
    ratios = {
        "samples": mine.samples / max(theirs.samples, 1),
        "tokens": mine.tokens["trained"] / max(theirs.tokens["trained"], 1),
    }
    others = [f"{ratio:.1f} times the {name}" for name, ratio in ratios.items() if not 0.9 < ratio < 1.1]
    equal = "tokens processed" if one.budget == "processed" else one.budget
    return f" at equal {equal}" + (f", on {others[0]}" if others else "")


def _counted(policies: Sequence[str], found: Sequence[Comparison]) -> str:
    """Of policies that get no words of their own, how many did how well against the first rival."""
    rival = found[0].rival
    fates = [one.better for one in found if one.policy in policies and (one.rival, one.metric) == (rival, "loss")]
    better, worse = fates.count("policy"), fates.count("rival")
    return (
        f"Of the other {len(fates)}, {better} are better than {rival}, {worse} are worse, and "
        f"{len(fates) - better - worse} cannot be told from it."
    )


def _loss(summary: Summary) -> float:
    return float("nan") if summary.loss is None else summary.loss


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
