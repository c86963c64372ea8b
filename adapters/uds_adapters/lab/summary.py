"""Many runs in few numbers: means over seeds, their spread, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .run import RunResult

__all__ = ["Summary", "summarise", "verdict"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The runs of one policy; all numbers but the spread are means over seeds."""

    policy: str
    seeds: int
    loss_before: float | None
    """None where nothing is held out."""
    loss: float | None
    """Held out, at the end."""
    spread: float | None
    """Standard deviation of `loss` over seeds; None for a single one."""
    samples: float
    tokens: dict[str, float]
    seconds: dict[str, float]
    flagged: dict[str, float]
    """Of the samples trained on, the share with a flag, such as a wrong answer."""


def summarise(runs: Sequence[RunResult], /, *, flags: Mapping[str, Sequence[bool]] | None = None) -> list[Summary]:
    """One summary a policy, in the order of their first run.

    Parameters
    ----------
    runs
        Of all policies and seeds.
    flags
        Known properties of the training examples: name -> one truth value an example.
    """
    policies = list(dict.fromkeys(run.policy for run in runs))
    return [_summary([run for run in runs if run.policy == policy], flags or {}) for policy in policies]


def verdict(summaries: Sequence[Summary], /) -> str:
    """Which policy got the lowest loss, and whether that is more than chance among seeds."""
    measured = [summary for summary in summaries if summary.loss is not None]
    if not measured:
        return "Nothing was held out, so no policy can be called better."
    ranked = sorted(measured, key=_loss)
    if len(ranked) == 1:
        return f"{ranked[0].policy} went from {_number(ranked[0].loss_before)} to {_number(ranked[0].loss)}."
    best = ranked[0]
    said = [f"{best.policy} reached the lowest held-out loss, {_number(best.loss)}{_effort(best, ranked)}."]
    control = next((summary for summary in measured if summary.policy == "random"), None)
    if control is None:
        return " ".join(
            [*said, "Without `random` among the policies, it is not known what the choice itself is worth."]
        )
    rivals = [s for s in ranked if s is not control and s.samples <= 1.01 * control.samples]
    said += [_against(rivals[0], control)] if rivals else []
    return " ".join(said)


def _summary(runs: Sequence[RunResult], flags: Mapping[str, Sequence[bool]]) -> Summary:
    final = [run.evaluations[-1].loss for run in runs if run.evaluations]
    chosen = [index for run in runs for step in run.selected for index in step]
    return Summary(
        policy=runs[0].policy,
        seeds=len(runs),
        loss_before=fmean(run.evaluations[0].loss for run in runs) if final else None,
        loss=fmean(final) if final else None,
        spread=stdev(final) if len(final) > 1 else None,
        samples=fmean(run.samples for run in runs),
        tokens={name: fmean(run.tokens[name] for run in runs) for name in runs[0].tokens},
        seconds={name: fmean(run.seconds[name] for run in runs) for name in runs[0].seconds},
        flagged={name: fmean(values[index] for index in chosen) for name, values in flags.items()},
    )


def _effort(best: Summary, ranked: Sequence[Summary]) -> str:
    fewest = min(summary.samples for summary in ranked)
    if best.samples < 1.05 * fewest:
        return ""
    return f" (it trained on {best.samples / fewest:.1f} times as many samples as the thriftiest policy)"


def _against(rival: Summary, control: Summary) -> str:
    """The best policy that trains on as little as `random` does, against it."""
    gap = _loss(control) - _loss(rival)
    said = (
        f"With as many samples as random, {rival.policy} is {'better' if gap > 0 else 'worse'} by {_number(abs(gap))}"
    )
    if rival.spread is None or control.spread is None:
        return f"{said}; one seed does not tell how much of that is chance."
    spread = max(rival.spread, control.spread)
    holds = abs(gap) > spread
    return f"{said}, which {'exceeds' if holds else 'does not exceed'} the spread over seeds ({_number(spread)})."


def _loss(summary: Summary) -> float:
    return float("nan") if summary.loss is None else summary.loss


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
