"""What the terminal shows in the end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from .summary import Summary

__all__ = ["table"]


def table(summaries: Sequence[Summary], /) -> Table:
    """One row a policy: loss, samples, tokens, seconds."""
    several = any(summary.spread is not None for summary in summaries)
    flags = list(summaries[0].flagged)
    shown = Table(title="Means a run" + (" ± standard deviation over seeds" if several else ""), title_justify="left")
    shown.add_column("policy", style="bold")
    headings = ("held-out loss", "before", "samples\ntrained", "tokens\ntrained", "tokens\nscored")
    seconds = ("scoring\ns", "fwd+bwd\ns", "rest\ns", "total\ns")
    for heading in (*headings, *seconds, *(f"{flag}\n%" for flag in flags)):
        shown.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        shown.add_row(summary.policy, *_cells(summary), *(f"{100 * summary.flagged[flag]:.0f}" for flag in flags))
    return shown


def _cells(summary: Summary) -> list[str]:
    loss = "-" if summary.loss is None else f"{summary.loss:.3f}"
    spread = "" if summary.spread is None else f" ± {summary.spread:.3f}"
    before = "-" if summary.loss_before is None else f"{summary.loss_before:.3f}"
    counts = (summary.samples, summary.tokens["trained"], summary.tokens["forwarded_for_scoring"])
    parts = ("scoring", "forward_backward", "rest", "total")
    return [loss + spread, before, *(f"{n:,.0f}" for n in counts), *(f"{summary.seconds[part]:.1f}" for part in parts)]
