"""From results to what the page draws: all that must be small, counted or averaged is so before it gets there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import choices, records
from .curves import curves
from .policies import explanations
from .scores import Scores

__all__ = ["sentences", "view"]

_FACTS = ("model", "data", "keep", "budget", "steps", "batch_size", "training_examples", "heldout_examples")


def view(results: Mapping[str, Any], /, *, name: str, after: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Everything on one page, ready for JSON: what cannot be known of these results is empty or None.

    Parameters
    ----------
    results
        Of `compare`; the path of an audit is absolute, or seen from the working directory.
    name
        What the page calls them, where it shows several.
    after
        Called after each audit, which take the time.
    """
    runs, summary = results["runs"], results["summary"]
    policies = [row["policy"] for row in summary]
    scores = Scores()
    scores.add(runs, after=after)
    configuration = results.get("configuration") or {}
    made = {
        "name": name,
        "command": results.get("command") or "",
        "verdict": sentences(results.get("verdict")),
        "policies": policies,
        "explanations": explanations(policies),
        "seeds": len({run["seed"] for run in runs}),
        "summary": summary,
        "comparisons": results.get("comparisons") or [],
        "curves": curves(runs, policies),
        "scores": scores.quantiles(),
        **_chosen(results, policies, scores),
        **records.listed(results, policies),
        "facts": [[fact, _short(configuration[fact])] for fact in _FACTS if configuration.get(fact) is not None],
        "configuration": [[key, said(value)] for key, value in configuration.items()],
        "versions": [[key, said(value)] for key, value in (results.get("versions") or {}).items()],
        "notes": [f"The audit {path} is missing, so the scores of that run are not shown." for path in scores.missing],
    }
    return _plain(made)


def said(value: Any, /) -> str:
    """A value of the configuration in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {said(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(said, value))
    return "-" if value is None else str(value).replace("\n", r"\n")


def _chosen(results: Mapping[str, Any], policies: Sequence[str], scores: Scores) -> dict[str, Any]:
    data = results.get("records") or []
    made = choices.choices(results["runs"], len(data), offered=scores.offered)
    known = any(choice.chosen for choice in made)
    return {
        "overlap": choices.overlap(made, policies) if known and len(policies) > 1 else None,
        "lengths": choices.lengths(made, data, policies) if known and data else None,
        "statistics": choices.statistics(made, data, policies) if known and data else [],
    }


def _short(value: Any) -> str:
    """Of a path, its end alone."""
    return "/".join(re.split(r"[\\/]", said(value).rstrip("\\/"))[-2:])


def sentences(verdict: Any, /) -> list[str]:
    """A verdict, sentence by sentence; empty where there is none."""
    return re.split(r"(?<=\.)\s+", verdict) if isinstance(verdict, str) else list(verdict or [])


def _plain(value: Any) -> Any:
    """With six digits, and None for what is no number: all that a browser needs and can read."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
