"""Cost model of selection, and the advice that follows from it.

A step that keeps K of B candidates takes ``collate(B) + score(B) + forward(K) + backward(K) + update``, one that trains
on all B ``collate(B) + forward(B) + backward(B) + update``, one on K random samples
``collate(B) + forward(K) + backward(K) + update``. `score` holds the scoring pass, the features and the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import LabError

__all__ = ["Advice", "Prediction", "StepCost", "advise"]

_WORTH = 0.9  # of a full step: a smaller saving is within the error of prediction
_HALF = 0.5  # of a step: with more of it spent on choosing, keeping less saves little
_NEAR = 1.05  # times the best: as good


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Seconds of the parts of a step."""

    collate: float
    scoring: float
    forward: float
    backward: float
    update: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.collate + self.scoring + self.forward + self.backward + self.update


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted costs for one number of candidates and one fraction kept."""

    candidates: int
    keep: float
    kept: int
    selecting: StepCost
    full: StepCost
    """On all candidates."""
    random: StepCost
    """On as many random samples as are kept."""
    peak: int | None = None
    """Predicted peak of the memory of a run, in bytes: the whole process on a CPU, what PyTorch allocates on a GPU."""
    full_peak: int | None = None
    """That of a run on all candidates."""

    @property
    def of_full(self) -> float:
        """Return the cost of a selecting step as a multiple of a full one: below 1 it saves time."""
        return self.selecting.total / self.full.total

    @property
    def of_random(self) -> float:
        """Return H, the cost of a selecting step as a multiple of a step on as many random samples."""
        return self.selecting.total / self.random.total

    @property
    def scoring_share(self) -> float:
        """Return the fraction of a selecting step that goes into choosing."""
        return self.selecting.scoring / self.selecting.total


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do, and why."""

    pays: bool
    """Whether time can be saved at all."""
    candidates: int
    keep: float
    """Of the advised setting; where selection does not pay, of the least bad one."""
    words: str


def advise(predictions: Sequence[Prediction], /) -> Advice:
    """Return the setting to take, or why selection will not pay.

    It pays where a step takes at most 0.9 of a full one. Among such settings, those that spend no more than half of
    the step on choosing come first: beyond that, keeping less saves little time and loses samples. Of these, the one
    that keeps least; of settings that pay but choose for longer, the one that keeps most. Candidates: as few as come
    within 5 % of the best.

    Raises
    ------
    LabError
        Where there are no predictions.
    """
    if not predictions:
        msg = "there is nothing to advise on: give at least one number of candidates"
        raise LabError(msg)
    paying = [p for p in predictions if p.of_full <= _WORTH]
    if not paying:
        return _against(min(predictions, key=lambda p: p.of_full))
    balanced = [p for p in paying if p.scoring_share <= _HALF]
    keep = min(p.keep for p in balanced) if balanced else max(p.keep for p in paying)
    known = [p for p in balanced or paying if p.keep == keep]
    best = min(p.of_full for p in known)
    taken = min((p for p in known if p.of_full <= _NEAR * best), key=lambda p: p.candidates)
    return _for(taken, [p for p in predictions if p.candidates == taken.candidates and p.keep < taken.keep])


def _for(taken: Prediction, smaller: Sequence[Prediction]) -> Advice:
    words = (
        f"Selection can save time here. Try --batch-size {taken.candidates} --keep {taken.keep:g}: a step that chooses "
        f"{taken.kept} of {taken.candidates} candidates takes {taken.of_full:.2f} times as long as one on all "
        f"{taken.candidates}, and {taken.scoring_share:.0%} of it goes into choosing. {_smaller(smaller)}"
        f"{_needed(taken)}"
    )
    return Advice(pays=True, candidates=taken.candidates, keep=taken.keep, words=words)


def _against(best: Prediction) -> Advice:
    words = (
        f"Selection will not save time here: even a step that chooses {best.kept} of {best.candidates} candidates "
        f"takes {best.of_full:.2f} times as long as one on all {best.candidates}. {_reason(best)} {_needed(best)}"
    )
    return Advice(pays=False, candidates=best.candidates, keep=best.keep, words=words)


def _smaller(passed: Sequence[Prediction]) -> str:
    """Return why smaller fractions are not advised."""
    if not passed:
        return ""
    spent = " and ".join(f"{p.scoring_share:.0%} with --keep {p.keep:g}" for p in passed)
    return (
        f"Smaller fractions were passed over, because choosing would be more than half of the step ({spent}): keeping "
        "less then saves little time, and fewer samples are trained on. "
    )


def _needed(one: Prediction) -> str:
    """Return the gain over random samples at which selection pays."""
    fewer = max(0.0, 1.0 - 1.0 / one.of_random)
    return (
        f"It takes H = {one.of_random:.1f} times as long as a step on {one.kept} random samples, so against random "
        f"selection it pays only if the chosen samples reach the same loss with {fewer:.0%} fewer "
        "trained tokens: `uds compare` measures whether they do."
    )


def _reason(best: Prediction) -> str:
    full = best.full
    fixed, training = full.collate + full.update, full.forward + full.backward
    if fixed > training:
        return (
            "What a step costs however few samples it trains on (the optimizer, above all) is "
            f"{fixed / full.total:.0%} of it: batches this small leave little to save."
        )
    if full.backward < full.forward:
        return (
            f"The backward pass is cheap here, {full.backward / full.forward:.1f} times the forward pass (do few "
            "parameters train?), and scoring needs a forward pass of every candidate."
        )
    return f"Scoring a candidate costs {best.selecting.scoring / training:.1f} times what training on it would."
