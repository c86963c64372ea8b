"""Numbers about choices, for a log."""

from __future__ import annotations

from collections.abc import Sequence

import uds_core as uds

__all__ = ["means", "of"]


def of(selection: uds.Selection | None, /) -> dict[str, float]:
    """Means of the score's parts, and the policy's own numbers; none where there was no choice."""
    if selection is None:
        return {}
    found = {f"{name}_mean": float(part.float().nanmean()) for name, part in selection.parts.items()}
    return found | {name: float(value) for name, value in selection.metrics.items()}


def means(metrics: Sequence[dict[str, float]], /) -> dict[str, float]:
    """The mean of each number, over those that have it."""
    names = sorted({name for one in metrics for name in one})
    columns = {name: [one[name] for one in metrics if name in one] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items()}
