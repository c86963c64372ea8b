"""Output files of a search: all trials, the best options as a configuration of `uds train`, and the page."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import storage
from ..console import config_file
from . import plots
from .finalists import Finalist
from .halving import Configuration, Halving, Outcome
from .search_space import Choices, Space, apply
from .trials import Trials

__all__ = ["BEST", "PICTURE", "RESULTS", "describe", "save"]

RESULTS, BEST, PICTURE = "tune.json", "best.yaml", "surface.html"

_NOT_TRAINING = frozenset({"steps", "epochs", "output", "overwrite", "json", "resume", "config"})


def describe(
    outcome: Outcome, /, *, trials: Trials, space: Space, halving: Halving, values: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """All that is worth keeping of a search, ready for JSON.

    Parameters
    ----------
    outcome, trials, space, halving
        The search.
    values, command
        How it was asked for.
    """
    policy, settings = apply(outcome.best.point, policy=trials.policy, settings=trials.settings)
    best = {"name": outcome.best.name, "policy": policy, "keep": settings.keep}
    return {
        "schema": 1,
        "command": command,
        "configuration": dict(values),
        "verdict": outcome.verdict,
        "distinguishable": outcome.distinguishable,
        "best": {**best, "learning_rate": settings.learning_rate, "batch_size": settings.batch_size},
        "noise": outcome.noise,
        "budget": asdict(trials.budget),
        "rungs": halving.rungs,
        "shares": [halving.share(rung) for rung in range(halving.rungs)],
        "seeds": halving.seeds,
        "space": {name: _domain(domain) for name, domain in space.items()},
        "finalists": [_finalist(one) for one in outcome.finalists],
        "default": _configuration(outcome.default),
        "configurations": [_configuration(one) for one in outcome.configurations],
    }


def save(results: Mapping[str, Any], folder: Path, /, *, known: Collection[str]) -> None:
    """Write the three files; `known` are the options of `uds train`."""
    storage.write(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False))
    storage.write(folder / PICTURE, plots.page(results))
    values = {name: value for name, value in results["configuration"].items() if name in set(known) - _NOT_TRAINING}
    best = results["best"]
    values |= {"policy": best["policy"], "keep": best["keep"], "batch_size": best["batch_size"]}
    values["learning_rate"] = best["learning_rate"]
    note = f"{results['verdict']}\n\nuds train --config THIS_FILE --output FOLDER; for one pass over the data."
    config_file.write(values, folder / BEST, note=note)


def _configuration(one: Configuration) -> dict[str, Any]:
    return {"number": one.number, "name": one.name, "values": dict(one.point), "runs": one.runs}


def _finalist(one: Finalist) -> dict[str, Any]:
    return {
        "name": one.name,
        "loss": one.loss if math.isfinite(one.loss) else None,
        "losses": [loss if math.isfinite(loss) else None for loss in one.losses],
        "difference": None if one.difference is None else one.difference.mean,
        "interval": None if one.difference is None else [one.difference.low, one.difference.high],
    }


def _domain(domain: Any) -> dict[str, Any]:
    return {"choices": list(domain.values)} if isinstance(domain, Choices) else asdict(domain)
