"""Records of a selection in an audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import uds_core as uds

from ..audit import Audit
from .assignment import Assignment
from .history import History

__all__ = ["record", "warn_of_missing"]


def record(
    audit: Audit,
    history: History,
    selection: uds.Selection,
    assignment: Assignment,
    /,
    *,
    ids: Sequence[Any],
    step: int,
) -> None:
    """Record scores and choice of this process's candidates in one pool; `ids`: of all of its candidates, or none."""
    columns = {**selection.table(), "tokens": assignment.pool.tokens.numpy()}
    places = assignment.places.numpy()  # NumPy takes a tensor of one element for a number
    parts = {name: column[places] for name, column in columns.items()}
    first = assignment.first
    own = ids[first : first + len(assignment.places)] or None
    chosen = [i - first for i in assignment.chosen_here]
    audit.record(history.choices, own, parts, chosen, optimizer_step=step)
    history.add_audited(every=audit.every)


def warn_of_missing(audit: Audit | None, history: History, /) -> None:
    """Warn when an audit lost records that were written before the state of `history` was saved."""
    if audit is not None and history.audited is not None:
        audit.warn_of_missing(*history.audited)
