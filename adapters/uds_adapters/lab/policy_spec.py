"""Policies and option values parsed from command-line text, with errors for the user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import uds_core as uds

from .errors import LabError

__all__ = ["early", "make_policy", "pair", "parse", "wants_target"]


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
    _, options = parse(spec)
    if wants_target(spec) and "target" not in (provided or {}):
        msg = (
            f"policy {spec!r} needs samples of a target: name a file of records of what the model must do with "
            "`--target`, where the command has it"
        )
        raise LabError(msg)
    try:
        return uds.make_policy(spec, keep=keep, seed=seed, **(provided or {}))
    except (ImportError, TypeError, ValueError) as error:
        known = str(error)
        msg = f"policy {spec!r}: {known}" if options and not known.startswith("policy ") else known
        raise LabError(msg) from None


def wants_target(spec: str, /) -> bool:
    """Return whether the policy `spec`, or the one inside of it, chooses by samples of a target."""
    name, options = parse(spec)
    return bool({"targeted", "rds"} & {name, options.get("policy")})


def early(spec: str, target: Path | None, /) -> dict[str, Any]:
    """Return options for a policy of a training that is made to be checked before its inputs are there.

    Raises
    ------
    LabError
        Where the policy chooses once, before training.
    """
    if parse(spec)[0] == "rds":
        msg = "policy rds chooses once, before training: write a subset with `uds score --policy rds --target FILE`"
        raise LabError(msg)
    return {} if target is None else {"target": torch.ones(1, 1)}


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
