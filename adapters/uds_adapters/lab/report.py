"""`report.html`: one page that needs nothing but a browser."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
import plotly.io

__all__ = ["page"]

_COLOURS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b")
_PARTS = {  # of the time: what is selection's own is dark
    "scoring": ("scoring candidates", "#33415c"),
    "forward_backward": ("forward and backward", "#8fa3bf"),
    "rest": ("rest (optimizer, data)", "#d9dfe8"),
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem }
p.verdict { font-size: 1.05rem; border-left: 4px solid #d55e00; padding-left: .8rem }
p.note { color: #666; margin: .2rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } .wide { overflow-x: auto }
th, td { padding: .3rem .55rem; border-bottom: 1px solid #e3e3e3; text-align: right; white-space: nowrap }
th { color: #555; font-weight: 600; white-space: normal; vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere }
.plain td:first-child { color: #555; white-space: nowrap }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }
code { background: #f4f4f4; padding: .1rem .3rem; overflow-wrap: anywhere }
"""


def page(results: Mapping[str, Any], /) -> str:
    """The whole page, of what `describe` returns; plotly's JavaScript is inside, so nothing is loaded."""
    summary = results["summary"]
    colours = {row["policy"]: _COLOURS[n % len(_COLOURS)] for n, row in enumerate(summary)}
    figures = [(_time(summary), 150 + 45 * len(summary))]
    if any(run["evaluations"] for run in results["runs"]):
        against_samples = _losses(results["runs"], colours, along="samples", title="samples trained on")
        against_seconds = _losses(
            results["runs"], colours, along="seconds", title="training time, evaluation left out (s)"
        )
        figures = [(against_samples, 420), (against_seconds, 420), *figures]
    drawn = [_drawn(figure, height=height, script=n == 0) for n, (figure, height) in enumerate(figures)]
    titles = ["Held-out loss against samples trained on", "Held-out loss against seconds", "Where the time goes"]
    sections = "".join(f"<h2>{t}</h2>{d}" for t, d in zip(titles[-len(drawn) :], drawn, strict=True))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Selection policies compared</title>'
        f"<style>{_STYLE}</style></head><body><h1>Selection policies compared</h1>"
        f"<p class=note><code>{html.escape(results['command'])}</code></p>"
        f"<p class=verdict>{html.escape(results['verdict'])}</p>"
        f"{_table(summary, colours)}{sections}"
        f"<h2>Configuration</h2>{_pairs(results['configuration'])}"
        f"<h2>Versions</h2>{_pairs(results['versions'])}</body></html>"
    )


def _losses(runs: Sequence[Mapping[str, Any]], colours: Mapping[str, str], *, along: str, title: str) -> go.Figure:
    """The mean over seeds as a thick line with markers; behind it each seed as a thin one."""
    figure = go.Figure()
    for policy, colour in colours.items():
        curves = [run["evaluations"] for run in runs if run["policy"] == policy]
        for curve in curves if len(curves) > 1 else []:
            _line(figure, policy, [e[along] for e in curve], [e["loss"] for e in curve], colour, thin=True)
        moments = list(zip(*curves, strict=True))
        x = [fmean(e[along] for e in moment) for moment in moments]
        _line(figure, policy, x, [fmean(e["loss"] for e in moment) for moment in moments], colour)
    figure.update_xaxes(title=title, rangemode="tozero")
    figure.update_yaxes(title="held-out loss (nats per token)", range=_range_once_trained(runs))
    return figure


def _range_once_trained(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """From the lowest loss to the highest after the start, which would squeeze all that policies differ in."""
    losses = [e["loss"] for run in runs for e in run["evaluations"][1:]]
    margin = 0.06 * (max(losses) - min(losses)) + 1e-3
    return [min(losses) - margin, max(losses) + margin]


def _line(
    figure: go.Figure, policy: str, x: Sequence[float], y: Sequence[float], colour: str, *, thin: bool = False
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        name=policy,
        legendgroup=policy,
        showlegend=not thin,
        mode="lines" if thin else "lines+markers",
        line={"color": colour, "width": 1 if thin else 2.5},
        opacity=0.35 if thin else 1,
        hoverinfo="skip" if thin else None,
        hovertemplate=None if thin else "%{y:.4f} at %{x:.4~g}",
    )


def _time(summary: Sequence[Mapping[str, Any]]) -> go.Figure:
    """One bar a policy, in the order of the table."""
    figure = go.Figure()
    policies = [row["policy"] for row in summary]
    for part, (name, colour) in _PARTS.items():
        seconds = [row["seconds"][part] for row in summary]
        hover = f"{name}: %{{x:.3~g}} s"
        figure.add_bar(y=policies, x=seconds, name=name, orientation="h", marker_color=colour, hovertemplate=hover)
    totals = [row["seconds"]["total"] for row in summary]
    for policy, total in zip(policies, totals, strict=True):
        figure.add_annotation(x=total, y=policy, text=f"{total:.1f} s", showarrow=False, xanchor="left", xshift=6)
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(title="seconds a run, mean over seeds, evaluation left out", range=[0, 1.1 * max(totals)])
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _drawn(figure: go.Figure, *, height: int, script: bool) -> str:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 40, "b": 55},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    config = {"displayModeBar": False, "responsive": True}
    return plotly.io.to_html(figure, include_plotlyjs=script, full_html=False, config=config)


def _table(summary: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    flags = list(summary[0]["flagged"])
    head = ["policy", "loss before", "held-out loss", "samples", "tokens trained", "tokens scored"]
    head += ["scoring s", "fwd+bwd s", "rest s", "total s", *(f"{flag} %" for flag in flags)]
    rows = []
    for row in summary:
        loss = _number(row["loss"]) + (f" ± {row['spread']:.3f}" if row["spread"] is not None else "")
        tokens, seconds = row["tokens"], row["seconds"]
        counts = (row["samples"], tokens["trained"], tokens["forwarded_for_scoring"])
        cells = [_number(row["loss_before"]), loss, *(f"{count:,.0f}" for count in counts)]
        cells += [f"{seconds[part]:.1f}" for part in (*_PARTS, "total")]
        cells += [f"{100 * row['flagged'][flag]:.0f}" for flag in flags]
        name = f'<span class="dot" style="background:{colours[row["policy"]]}"></span>{html.escape(row["policy"])}'
        rows.append("".join(f"<td>{cell}</td>" for cell in [name, *cells]))
    spread = " ± standard deviation over seeds" if summary[0]["spread"] is not None else ", one seed"
    thin = " Thin lines are single seeds." if summary[0]["spread"] is not None else ""
    flagged = f"; {', '.join(flags)}: shares of the samples trained on" if flags else ""
    return (
        f"<div class=wide><table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>"
        f"{''.join(f'<tr>{row}</tr>' for row in rows)}</table></div>"
        f"<p class=note>Means a run; held-out loss in nats per token{spread}{html.escape(flagged)}. "
        f"The charts leave out the loss before training; double-click one to see all of it.{thin}</p>"
    )


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_said(value))}</td></tr>" for name, value in values.items()
    )
    return f"<table class=plain>{rows}</table>"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_said(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value))
    return "-" if value is None else str(value).replace("\n", r"\n")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
