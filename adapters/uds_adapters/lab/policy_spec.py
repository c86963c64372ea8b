"""Policies and option values parsed from command-line text, with errors for the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import uds_core as uds

from .errors import LabError

__all__ = ["make_policy", "pair", "parse"]


def parse(spec: str, /) -> tuple[str, dict[str, Any]]:
    """Return name and options of ``name:option=value,option=value``; see `uds.parse_policy`.

    Raises
    ------
    LabError
        If an option has no value, or comes twice.
    """
    try:
        return uds.parse_policy(spec)
    except (ValueError, RecursionError) as error:
        raise LabError(str(error)) from None


def make_policy(spec: str, /, *, keep: float, seed: int, provided: Mapping[str, Any] | None = None) -> uds.Policy:
    """Return the policy that `spec` names; `keep` and `seed` are its options unless it has its own.

    `provided`: options that text cannot express, such as a `uds.Ledger`; those of `spec` come first.

    Raises
    ------
    LabError
        Where there is no such policy or option, or a value does not fit.
    """
    name, options = parse(spec)
    if "targeted" in (name, options.get("policy")) and "target" not in (provided or {}):
        msg = (
            f"policy {spec!r}: targeted needs samples of a target, which a command line cannot give: use "
            "uds_core.Targeted(target=uds_core.ngram_counts(token_ids)) in a training script"
        )
        raise LabError(msg)
    try:
        return uds.make_policy(spec, keep=keep, seed=seed, **(provided or {}))
    except (ImportError, TypeError, ValueError) as error:
        known = str(error)
        msg = f"policy {spec!r}: {known}" if options and not known.startswith("policy ") else known
        raise LabError(msg) from None


def pair(text: str, /, *, option: str) -> tuple[str, Any]:
    """Return name and value of ``name=value``, the value of `option`.

    Raises
    ------
    LabError
        Where there is no name or no value.
    """
    name, found, rest = (part.strip() for part in text.partition("="))
    if not (name and found and rest):
        msg = f"`{option}` must be name=value, got {text!r}"
        raise LabError(msg)
    try:
        return name, uds.parse_value(rest)
    except (ValueError, RecursionError) as error:
        msg = f"`{option}` {name}: {error}"
        raise LabError(msg) from None
