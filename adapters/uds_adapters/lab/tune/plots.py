"""The page of a search: the loss against each option, with the noise between seeds, drawn by Optuna."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import optuna
import plotly.graph_objects as go
import plotly.io
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from .search_space import Choices, Range, Space, distributions

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --text: #222; --dim: #666; --line: #ddd; --back: #fff }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --dim: #a0a0a0; --line: #444; --back: #16181c } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 72rem;
  margin: 1.5rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.note { color: var(--dim) } .verdict { border-left: 4px solid #2c5aa0; padding-left: .8rem }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem }
.panels > div { min-width: 0 } .verdict { overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .7rem; text-align: right; white-space: nowrap }
td:first-child, th:first-child { text-align: left }
"""

# figures are drawn while the page is read, before it is known how many share a row
_FIT = '<script>addEventListener("load", () => dispatchEvent(new Event("resize")))</script>'

_LOSS = "loss minus the default's"
_EACH = (
    "A point is a run: its held-out loss minus that of the default in a run of the same length and seed, in nats per "
    "token. Below 0 is better than the default. Darker points are longer runs, the darkest the finalists' means."
)
_PAIRS = "The two pairs of options with the highest importance, interpolated between the runs. Dark is a lower loss."
_ORDER = "The shortest runs in the order of the proposals, and how much each option matters among them (PED-ANOVA)."


def page(results: Mapping[str, Any], /) -> str:
    """Return the page of `tune.json`: self-contained, light or dark as the reader's system is."""
    space: Space = {
        name: Choices(tuple(domain["choices"])) if "choices" in domain else Range(**domain)
        for name, domain in results["space"].items()
    }
    every = _study(results, space, rungs=results["rungs"])
    first = _study(results, space, rungs=1)
    importances = get_param_importances(first, evaluator=PedAnovaImportanceEvaluator()) if len(first.trials) > 1 else {}
    pairs = sorted(combinations(space, 2), key=lambda pair: -sum(importances.get(name, 0.0) for name in pair))
    history = [visualization.plot_optimization_history(first, target_name=_LOSS), _bars(importances)]
    sections = [
        (
            "Each option against the loss",
            f"{_EACH} {_noise(results['noise'])}",
            _slices(every, space, results["noise"]),
        ),
        ("Two options at once", _PAIRS, [_contour(every, pair) for pair in pairs[:2]]),
        ("The search", _ORDER, history if importances else []),
    ]
    shown = "".join(_section(*section, script=number == 0) for number, section in enumerate(sections))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Options searched</title><style>{_STYLE}</style></head><body><h1>Options searched</h1>"
        f"<p class=note><code>{html.escape(results['command'])}</code></p>"
        f"<p class=verdict>{html.escape(results['verdict'])}</p>{shown}"
        f"<h2>Finalists</h2>{_table(results)}{_FIT}</body></html>"
    )


def _study(results: Mapping[str, Any], space: Space, *, rungs: int) -> optuna.Study:
    """Return the runs of the first `rungs` rungs as a study, a trial for each configuration and rung.

    Later rungs come last: their trials are drawn darker, and over shorter runs of the same configuration.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for rung in range(rungs):
        for one in results["configurations"]:
            differences = [run["difference"] for run in one["runs"] if run["rung"] == rung]
            if differences and None not in differences:
                study.add_trial(
                    optuna.trial.create_trial(
                        value=fmean(differences), params=dict(one["values"]), distributions=distributions(space)
                    )
                )
    return study


def _slices(study: optuna.Study, space: Space, noise: float | None) -> list[go.Figure]:
    """Return a figure for each option, with a band of twice the noise around the default's loss."""
    if not study.trials:
        return []
    figures = [visualization.plot_slice(study, [name], target_name=_LOSS) for name in space]
    for figure in figures:
        if noise is not None:
            figure.add_hrect(y0=-2 * noise, y1=2 * noise, fillcolor="#888", opacity=0.18, line_width=0)
        figure.add_hline(y=0, line={"color": "#888", "width": 1, "dash": "dot"})
    return figures


def _contour(study: optuna.Study, pair: Sequence[str]) -> go.Figure:
    return visualization.plot_contour(study, list(pair), target_name=_LOSS)


def _bars(importances: Mapping[str, float]) -> go.Figure:
    names = sorted(importances, key=importances.__getitem__)
    figure = go.Figure(go.Bar(x=[importances[name] for name in names], y=names, orientation="h"))
    return figure.update_xaxes(title="importance")


def _section(heading: str, note: str, figures: Sequence[go.Figure], *, script: bool) -> str:
    if not figures:
        return ""
    drawn = [_drawn(figure, script=script and number == 0) for number, figure in enumerate(figures)]
    panels = "".join(f"<div>{one}</div>" for one in drawn)
    return f"<h2>{heading}</h2><p class=note>{note}</p><div class=panels>{panels}</div>"


def _drawn(figure: go.Figure, *, script: bool) -> str:
    figure.update_layout(
        title=None,
        height=320,
        margin={"l": 60, "r": 15, "t": 15, "b": 45},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        font={"color": "#828282", "size": 12},
    )
    config = {"displayModeBar": False, "responsive": True}
    return plotly.io.to_html(figure, include_plotlyjs=script, full_html=False, config=config)


def _noise(noise: float | None) -> str:
    if noise is None:
        return "With one seed, nothing is known of the noise."
    return f"The grey band is the noise between seeds: twice the standard deviation of a single run, {noise:.4f}."


def _table(results: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("configuration", "held-out loss", "minus the default's", "interval"))
    rows = []
    for row in results["finalists"]:
        interval = "-" if row["interval"] is None else f"{row['interval'][0]:+.4f} to {row['interval'][1]:+.4f}"
        difference = "-" if row["difference"] is None else f"{row['difference']:+.4f}"
        loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
        rows.append(
            f"<tr><td>{html.escape(row['name'])}</td><td>{loss}</td><td>{difference}</td><td>{interval}</td></tr>"
        )
    return f"<div class=wide><table><tr>{head}</tr>{''.join(rows)}</table></div>"
