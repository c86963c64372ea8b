"""Metrics of selections for the log."""

from __future__ import annotations

from collections.abc import Sequence

import uds_core as uds

__all__ = ["means", "of"]


def of(selection: uds.Selection | None, /) -> dict[str, float]:
    """Return the means of the score's parts and the policy's own metrics that are known; empty without a selection."""
    if selection is None:
        return {}
    values = {f"{name}_mean": float(part.float().nanmean()) for name, part in selection.parts.items()}
    own = {name: float(value) for name, value in selection.metrics.items()}
    return values | {name: value for name, value in own.items() if value == value}  # noqa: PLR0124 - not known yet


def means(metrics: Sequence[dict[str, float]], /) -> dict[str, float]:
    """Return the mean of each metric over the selections that have it."""
    names = sorted({name for one in metrics for name in one})
    columns = {name: [one[name] for one in metrics if name in one] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items()}
