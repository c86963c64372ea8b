"""Result tables for the terminal, within 80 columns: names of policies are wrapped, numbers never."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .statistics import Summary

__all__ = ["tables"]


_NARROWEST = 8  # columns of a wrapped name
_PART = re.compile(r"[^:,]*[:,]|[^:,]+$")
_PIECE = re.compile(r"[^=]*=|[^=]+$")  # of a part that is longer than a line


@dataclass(frozen=True)
class _Name:
    """Name of a policy, in as many lines as its column asks for: broken after `:` and `,`, then after `=`."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_NARROWEST, len(self.text)), len(self.text)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text("\n".join(_lines(self.text, options.max_width)))


def _lines(name: str, width: int) -> list[str]:
    lines = [""]
    for part in _PART.findall(name):
        for piece in [part] if len(part) <= width else _PIECE.findall(part):
            for start in range(0, len(piece), width):
                if lines[-1] and len(lines[-1]) + len(piece[start : start + width]) > width:
                    lines.append("")
                lines[-1] += piece[start : start + width]
    return lines


def tables(summaries: Sequence[Summary], /) -> list[Table]:
    """Return the tables: loss and cost; answers, where they were measured; known flaws of the samples trained on."""
    shown = [_costs(summaries)]
    if summaries[0].accuracy is not None or summaries[0].exact_match is not None:
        shown.append(_answers(summaries))
    return [*shown, *([_flags(summaries)] if summaries[0].flagged else [])]


def _costs(summaries: Sequence[Summary]) -> Table:
    several = any(summary.seeds > 1 for summary in summaries)
    title = "Means over seeds (standard deviation)" if several else "One seed"
    if summaries[0].loss_before is not None:
        title += f"; held-out loss before training {summaries[0].loss_before:.3f}"
    names = ("held-out\nloss", "samples\ntrained", "tokens\ntrained", "tokens\nscored")
    seconds = ("score\ns", "train\ns", "rest\ns", "total\ns", "eval\ns")
    shown = _empty(title, *names, *seconds)
    for summary in summaries:
        shown.add_row(_Name(summary.policy), *_cells(summary))
    prepared = {summary.policy: summary.seconds.get("preparation", 0.0) for summary in summaries}
    before = [f"{policy}: {spent:.1f} s before it" for policy, spent in prepared.items() if spent]
    shown.caption = "; ".join(
        [
            "Tokens trained are those with loss, tokens scored are all",
            "total is without eval, the evaluations",
            *before,
        ]
    )
    shown.caption_justify = "left"
    return shown


def _answers(summaries: Sequence[Summary]) -> Table:
    rows = {"accuracy %": [s.accuracy for s in summaries], "exact match %": [s.exact_match for s in summaries]}
    measured = {name: values for name, values in rows.items() if values[0] is not None}
    shown = _empty("Held-out answers that are right", *measured)
    for place, summary in enumerate(summaries):
        shares = [values[place] for values in measured.values()]
        shown.add_row(_Name(summary.policy), *("-" if share is None else f"{100 * share:.1f}" for share in shares))
    return shown


def _flags(summaries: Sequence[Summary]) -> Table:
    names = list(summaries[0].flagged)
    shown = _empty("Of the samples trained on, what is known", *(f"{name} %" for name in names))
    for summary in summaries:
        shown.add_row(_Name(summary.policy), *(f"{100 * summary.flagged[name]:.0f}" for name in names))
    return shown


def _empty(title: str, *headings: str) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    shown.add_column(
        "\npolicy" if any("\n" in heading for heading in headings) else "policy", style="bold", overflow="fold"
    )
    for heading in headings:
        shown.add_column(heading, justify="right", no_wrap=True)
    return shown


def _cells(summary: Summary) -> list[str]:
    loss = "-" if summary.loss is None else f"{summary.loss:.3f}"
    loss = "diverged" if summary.diverged else loss
    spread = "" if summary.spread is None else f" ({summary.spread:.3f})"
    counts = (summary.samples, summary.tokens["trained"], summary.tokens["forwarded_for_scoring"])
    parts = ("scoring", "forward_backward", "rest", "total", "evaluation")
    return [loss + spread, *map(_count, counts), *(f"{summary.seconds.get(part, 0.0):.1f}" for part in parts)]


def _count(number: float) -> str:
    """With a unit from ten thousand on."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= max(size, 1e4):
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"
