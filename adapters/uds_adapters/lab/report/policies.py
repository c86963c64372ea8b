"""Explanations of policies: the first sentence of each docstring."""

from __future__ import annotations

import re
from collections.abc import Sequence

import uds_core as uds

__all__ = ["explanations", "first_sentence"]


def explanations(policies: Sequence[str], /) -> list[list[str]]:
    """Return a name and a sentence for each policy among `policies`, in their order, each policy once.

    `policies`: names with or without options, and with or without a folder before them, as in ``small: uds:alpha=1``.
    A policy that is not installed here, or has no docstring, is left out.
    """
    names = dict.fromkeys(re.sub(r"^.*: ", "", policy).partition(":")[0].strip() for policy in policies)
    return [[name, sentence] for name in names if (sentence := first_sentence(name))]


def first_sentence(name: str, /) -> str | None:
    """Return the first sentence of the docstring of the policy `name`, without marks of code; None if there is none."""
    try:
        policy = uds.get(name)
    except (ImportError, TypeError, ValueError):
        return None
    documented = (policy.__doc__ or "").strip()
    generated = f"{getattr(policy, '__name__', '')}("  # a dataclass without a docstring gets its signature
    if not documented or documented.startswith(generated):
        return None
    paragraph = " ".join(re.split(r"\n\s*\n", documented)[0].split()).replace("`", "")
    return re.split(r"(?<=\.)\s", paragraph)[0].rstrip(".") + "."
