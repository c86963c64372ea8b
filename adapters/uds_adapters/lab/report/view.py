"""Data of the page, computed from results: counted, averaged and rounded before they reach the browser."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..preview.section import section
from ..preview.values import Preview
from . import choices, records
from .curves import curves
from .policies import explanations
from .scores import Scores

__all__ = ["sentences", "view"]

_FACTS = ("model", "data", "keep", "budget", "steps", "batch_size", "training_examples", "heldout_examples")


def view(results: Mapping[str, Any], /, *, name: str, after: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Return the data of one page, ready for JSON; what the results do not contain is empty or None.

    Parameters
    ----------
    results
        Results of `compare`; paths of audits are absolute or relative to the working directory.
    name
        Name of these results in the menu of a page with several.
    after
        Called after each audit; reading them takes the time.
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
        "curves": curves(runs, policies, budget=str(configuration.get("budget") or "")),
        "scores": scores.quantiles(),
        **_chosen(results, policies, scores),
        **records.listed(results, policies),
        "preview": section(Preview.of_json(results["preview"])) if results.get("preview") else None,
        "facts": [[fact, _short(configuration[fact])] for fact in _FACTS if configuration.get(fact) is not None],
        "configuration": [[key, as_text(value)] for key, value in configuration.items()],
        "versions": [[key, as_text(value)] for key, value in (results.get("versions") or {}).items()],
        "notes": [f"The audit {path} is missing, so the scores of that run are not shown." for path in scores.missing],
    }
    return _plain(made)


def as_text(value: Any, /) -> str:
    """Return a value of the configuration as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {as_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(as_text, value))
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
    """Return the last two parts of a path."""
    return "/".join(re.split(r"[\\/]", as_text(value).rstrip("\\/"))[-2:])


def sentences(verdict: Any, /) -> list[str]:
    """Return the sentences of a verdict; an empty list if there is none."""
    return re.split(r"(?<=\.)\s+", verdict) if isinstance(verdict, str) else list(verdict or [])


def _plain(value: Any) -> Any:
    """Return `value` with six significant digits, and None for NaN and infinities, which JSON lacks."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
