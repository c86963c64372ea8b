"""Choice from one pool of candidates, with its work divided among the processes."""

from __future__ import annotations

from typing import Any

import uds_core as uds

from ..ranks import GatheredPool, Ranks

__all__ = ["choose"]

_LEAST = 256  # candidates: dividing the work of fewer costs more than it spares


def choose(policy: Any, state: Any, pool: GatheredPool, ranks: Ranks, /) -> tuple[uds.Selection, Any]:
    """Return the policy's selection, of each process's candidates or of all, and the next state."""
    features, number = pool.features, len(pool.tokens)
    apart = ranks.size > 1 and ranks.placement == "rank"
    groups = pool.owners.to(features["length"].device) if apart else None
    if ranks.size > 1 and policy.needs.divisible and number >= _LEAST:
        features = {**features, **ranks.divided(lambda rows: policy.prepare(state, features, rows), number)}
    return policy.choose(state, features, groups=groups)
