"""Search spaces, written as text: ``alpha=0..4,length=[none,sqrt,mean],memory=64..4096:log``."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import uds_core as uds

from ..errors import LabError
from ..policy_spec import make_policy, parse
from ..training.settings import Settings

__all__ = ["DEFAULT", "SETTINGS", "Choices", "Point", "Range", "Space", "apply", "default", "distributions", "read"]

DEFAULT = "alpha=[auto,0,0.5,1,2,4],keep=[0.125,0.25,0.5],length=[none,sqrt,mean],memory=64..4096:log"

SETTINGS = {"keep": float, "learning_rate": float, "batch_size": int}
"""What can be searched beside the policy's own options."""

Point = Mapping[str, Any]
"""Option -> value: one configuration. Empty: the default."""


@dataclass(frozen=True)
class Choices:
    """Values of which one is taken."""

    values: tuple[Any, ...]

    def ends(self) -> tuple[Any, ...]:
        """Values that must be allowed, for all to be."""
        return self.values

    def neat(self, value: Any, /) -> Any:
        """`value`, as it is."""
        return value


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Whether ratios count, and not differences."""
    whole: bool = False

    def ends(self) -> tuple[Any, ...]:
        """Values that must be allowed, for all to be."""
        return self.low, self.high

    def neat(self, value: float, /) -> float:
        """`value` in three digits: that many can be read, and more make no difference."""
        return value if self.whole else min(max(float(f"{value:.3g}"), self.low), self.high)


Space = Mapping[str, Choices | Range]


def read(text: str, /, *, policy: str, settings: Settings) -> Space:
    """The space in `text`; every value in it must be one that the policy, or the settings, allow.

    Parameters
    ----------
    text
        Options with commas between them. ``name=[a,b,c]``: one of these. ``name=low..high``: any number between;
        ``name=low..high:log``: evenly by ratio. Numbers are whole where the option takes whole numbers.
    policy, settings
        What is searched around. Options of the policy can be searched, and keep, learning_rate and batch_size.

    Raises
    ------
    LabError
        Where the text cannot be read, or names what cannot be searched.
    """
    space: dict[str, Choices | Range] = {}
    kinds = {**_kinds(policy), **SETTINGS}
    for part in _parts(text):
        name, found, rest = (piece.strip() for piece in part.partition("="))
        if not (name and found and rest):
            msg = f"`search`: expected name=[a,b] or name=low..high, got {part!r}"
            raise LabError(msg)
        if name in space:
            msg = f"`search`: {name!r} comes twice"
            raise LabError(msg)
        if name not in kinds:
            msg = f"`search`: {policy} has no option {name!r}; it has {', '.join(sorted(kinds))}"
            raise LabError(msg)
        space[name] = _domain(name, rest, whole=kinds[name] is int)
        for value in space[name].ends():
            _check({name: value}, policy, settings)
    if not space:
        msg = f"`search` names nothing: expected options and ranges, as in {DEFAULT}"
        raise LabError(msg)
    return space


def apply(point: Point, /, *, policy: str, settings: Settings) -> tuple[str, Settings]:
    """Policy in words, and settings, of a configuration."""
    name, options = parse(policy)
    options |= {key: value for key, value in point.items() if key not in SETTINGS}
    said = ",".join(f"{key}={_word(value)}" for key, value in options.items())
    changed = {key: value for key, value in point.items() if key in SETTINGS}
    return f"{name}:{said}" if said else name, replace(settings, **changed)


def distributions(space: Space, /) -> dict[str, BaseDistribution]:
    """Return the space as Optuna describes it."""
    return {name: _distribution(domain) for name, domain in space.items()}


def default(policy: str, /) -> str:
    """`DEFAULT`, as far as the policy has these options and does not set them itself."""
    kinds = {**_kinds(policy), **SETTINGS}
    given = parse(policy)[1]
    parts = [part for part in _parts(DEFAULT) if (name := part.partition("=")[0]) in kinds and name not in given]
    return ",".join(parts)


def _check(point: Point, policy: str, settings: Settings) -> None:
    spec, changed = apply(point, policy=policy, settings=settings)
    make_policy(spec, keep=changed.keep, seed=0)


def _parts(text: str) -> Iterator[str]:
    """At commas that stand in no brackets."""
    return (part for part in re.split(r",(?![^\[]*\])", text) if part.strip())


def _domain(name: str, text: str, *, whole: bool) -> Choices | Range:
    if text.startswith("[") and text.endswith("]"):
        values = tuple(uds.parse_value(part.strip()) for part in text[1:-1].split(",") if part.strip())
        if len(set(map(repr, values))) < max(len(values), 2):
            msg = f"`search` {name}: expected two values or more, each once, got {text}"
            raise LabError(msg)
        return Choices(values)
    found = re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text)
    try:
        low, high = (float(number) for number in found.group(1, 2)) if found else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    log = bool(found and found[3])
    if not low < high or (log and low <= 0) or (whole and not (low.is_integer() and high.is_integer())):
        kind = "whole numbers" if whole else "numbers"
        msg = f"`search` {name}: expected [a,b,c], or low..high or low..high:log with {kind} low < high, got {text}"
        raise LabError(msg)
    return Range(low=int(low) if whole else low, high=int(high) if whole else high, log=log, whole=whole)


def _distribution(domain: Choices | Range) -> BaseDistribution:
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.values)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _kinds(policy: str) -> dict[str, type]:
    """Options of the policy -> int where whole numbers are asked for, else float."""
    make_policy(policy, keep=0.5, seed=0)  # raises what people can mend
    make = uds.get(parse(policy)[0])
    hints = typing.get_type_hints(make)
    names = inspect.signature(make).parameters.keys() - {"seed"}
    return {name: int if _is_whole(hints.get(name)) else float for name in names}


def _is_whole(hint: Any) -> bool:
    return hint is int or set(typing.get_args(hint)) == {int, type(None)}


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
