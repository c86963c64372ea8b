"""Policies and option values parsed from command-line text, as in ``uds:alpha=auto,memory=4096``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import uds_core as uds

from .errors import LabError

__all__ = ["make_policy", "pair", "parse", "parse_value"]


def parse(spec: str, /) -> tuple[str, dict[str, Any]]:
    """Return name and options of ``name:option=value,option=value``.

    Values are numbers, ``true``, ``false``, ``null`` (Python's None), or else words.

    Raises
    ------
    LabError
        If an option has no value, or comes twice.
    """
    name, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    for part in rest.split(",") if rest else []:
        key, found, value = (piece.strip() for piece in part.partition("="))
        if not (key and found and value):
            msg = f"policy {spec!r}: expected options as `option=value`, got {part!r}; as in uds:alpha=0.5,dim=256"
            raise LabError(msg)
        if key in options:
            msg = f"policy {spec!r}: the option {key!r} comes twice"
            raise LabError(msg)
        options[key] = parse_value(value)
    return name.strip(), options


def make_policy(spec: str, /, *, keep: float, seed: int, provided: Mapping[str, Any] | None = None) -> uds.Policy:
    """The policy that `spec` names; `keep` and `seed` are its options unless it has its own, where it takes them.

    `provided`: options that no words can say, such as a `uds.Ledger`; those in words go before.

    Raises
    ------
    LabError
        Where there is no such policy or option, or a value does not fit.
    """
    name, options = parse(spec)
    try:
        make = uds.get(name)
        known = inspect.signature(make).parameters
        unknown = [option for option in options if option not in known]
        if unknown:
            msg = f"policy {spec!r}: {name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}"
            raise LabError(msg)
        budget = {} if {"count", "tokens"} & options.keys() else {"keep": keep}
        shared = {key: value for key, value in {**budget, "seed": seed}.items() if key in known}
        return make(**{**shared, **(provided or {}), **options})
    except (ImportError, TypeError, ValueError) as error:
        msg = f"policy {spec!r}: {error}" if options else str(error)
        raise LabError(msg) from None


def parse_value(text: str, /) -> Any:
    """A number, ``true``, ``false``, ``null`` (Python's None) or JSON; or else the words themselves."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return text


def pair(text: str, /, *, option: str) -> tuple[str, Any]:
    """Name and value of ``name=value``, which `option` was given.

    Raises
    ------
    LabError
        Where there is no name or no value.
    """
    name, found, rest = (part.strip() for part in text.partition("="))
    if not (name and found and rest):
        msg = f"`{option}` must be name=value, got {text!r}"
        raise LabError(msg)
    return name, parse_value(rest)
