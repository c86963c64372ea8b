"""The response surface as a page: what each option does to the loss, against how far that is chance."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
import plotly.io

__all__ = ["page"]

_RUNGS = ("#b8c4d6", "#6f8fc0", "#2c5aa0")  # from the shortest runs to the longest before the last
_FINAL, _BEST = "#d1495b", "#e09f3e"
_BETTER_TO_WORSE = ((0.0, "#2c7fb8"), (0.5, "#d9d9d9"), (1.0, "#c0392b"))
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
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; margin: 0 .35rem 0 .9rem }
"""

# figures are drawn while the page is read, before it is known how many share a row
_FIT = '<script>addEventListener("load", () => dispatchEvent(new Event("resize")))</script>'


def page(results: Mapping[str, Any], /) -> str:
    """The page of `tune.json`; self-contained, light or dark as the reader's system is."""
    space, points = results["space"], _points(results)
    panels = [_panel(name, space[name], points, results["noise"]) for name in space]
    pairs = sorted(combinations(space, 2), key=lambda pair: -sum(_influence(name, points) for name in pair))
    drawn = [_drawn(figure, script=number == 0) for number, figure in enumerate(panels)]
    both = [_drawn(_pair(pair, space, points), script=False) for pair in pairs[:2]]
    surface = f"<h2>Two options at once</h2><p class=note>{_PAIRS}</p>{_grid(both)}" if both else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Options searched</title><style>{_STYLE}</style></head><body><h1>Options searched</h1>"
        f"<p class=note><code>{html.escape(results['command'])}</code></p>"
        f"<p class=verdict>{html.escape(results['verdict'])}</p>"
        f"<h2>Each option against the loss</h2><p class=note>{_EACH} {_noise(results['noise'])}</p>"
        f"<p>{_legend(results)}</p>{_grid(drawn)}{surface}"
        f"<h2>Finalists</h2>{_table(results)}{_FIT}</body></html>"
    )


_EACH = (
    "A point is a run: its held-out loss minus that of the default in a run as long, under the same seed, in nats per "
    "token. Below 0 is better than the default."
)
_PAIRS = (
    "The pairs of options that the loss depends on most. Blue is better than the default, red is worse; large points "
    "are longer runs."
)


def _points(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One a configuration and rung: values, difference, rung, and on the last rung the interval."""
    finals = {row["name"]: row for row in results["finalists"]}
    found = []
    for one in results["configurations"]:
        for rung in sorted({run["rung"] for run in one["runs"]}):
            differences = [run["difference"] for run in one["runs"] if run["rung"] == rung]
            if None in differences:
                continue
            last = rung == results["rungs"] - 1
            found.append(
                {
                    "values": one["values"],
                    "name": one["name"],
                    "rung": rung,
                    "difference": fmean(differences),
                    "interval": finals[one["name"]]["interval"] if last else None,
                    "last": last,
                    "best": last and one["name"] == results["best"]["name"],
                }
            )
    return found


def _panel(name: str, domain: Mapping[str, Any], points: Sequence[Mapping[str, Any]], noise: float | None) -> go.Figure:
    figure = go.Figure()
    if noise is not None:
        figure.add_hrect(y0=-2 * noise, y1=2 * noise, fillcolor="#888", opacity=0.18, line_width=0)
    figure.add_hline(y=0, line={"color": "#888", "width": 1, "dash": "dot"})
    for rung in sorted({point["rung"] for point in points if not point["last"]}):
        some = [point for point in points if point["rung"] == rung]
        figure.add_scatter(
            **_where(name, domain, some),
            marker={"color": _colour(rung), "size": 7 + 2 * min(rung, 3)},
            hovertemplate=f"%{{text}}<br>%{{y:+.4f}}<extra>rung {rung + 1}</extra>",
        )
    final = [point for point in points if point["last"]]
    intervals = [point["interval"] or (point["difference"],) * 2 for point in final]
    figure.add_scatter(
        **_where(name, domain, final),
        marker={
            "color": [_BEST if point["best"] else _FINAL for point in final],
            "symbol": ["star" if point["best"] else "diamond" for point in final],
            "size": [15 if point["best"] else 11 for point in final],
            "line": {"color": "#fff", "width": 1},
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [high - p["difference"] for p, (_, high) in zip(final, intervals, strict=True)],
            "arrayminus": [p["difference"] - low for p, (low, _) in zip(final, intervals, strict=True)],
            "color": _FINAL,
            "thickness": 1.2,
        },
        hovertemplate="%{text}<br>%{y:+.4f}<extra>full budget</extra>",
    )
    figure.update_xaxes(title=name, **_axis(domain))
    figure.update_yaxes(title="loss minus the default's", zeroline=False)
    return figure


def _pair(pair: Sequence[str], space: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> go.Figure:
    """The longest run of each configuration, coloured by its difference."""
    longest = {point["name"]: point for point in points}  # in the order of the rungs
    some = list(longest.values())
    most = max((abs(point["difference"]) for point in some), default=0.0) or 1.0
    x, y = pair
    figure = go.Figure()
    figure.add_scatter(
        x=[_place(point["values"][x], space[x]) for point in some],
        y=[_place(point["values"][y], space[y]) for point in some],
        mode="markers",
        text=[point["name"] for point in some],
        hovertemplate="%{text}<br>%{marker.color:+.4f}<extra></extra>",
        marker={
            "color": [point["difference"] for point in some],
            "colorscale": _BETTER_TO_WORSE,
            "cmin": -most,
            "cmax": most,
            "size": [10 + 4 * point["rung"] for point in some],
            "line": {"color": "#888", "width": 0.5},
            "colorbar": {"title": "loss minus<br>default's", "thickness": 12, "tickformat": "+.3f"},
        },
    )
    figure.update_xaxes(title=x, **_axis(space[x]))
    figure.update_yaxes(title=y, **_axis(space[y]))
    return figure


def _where(name: str, domain: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "x": [_place(point["values"][name], domain) for point in points],
        "y": [point["difference"] for point in points],
        "text": [html.escape(point["name"]) for point in points],
        "mode": "markers",
    }


def _place(value: Any, domain: Mapping[str, Any]) -> Any:
    return str(value) if "choices" in domain else value


def _axis(domain: Mapping[str, Any]) -> dict[str, Any]:
    if "choices" in domain:
        order = [str(value) for value in domain["choices"]]
        return {"type": "category", "categoryorder": "array", "categoryarray": order, "range": [-0.5, len(order) - 0.5]}
    if not domain["log"]:
        return {"type": "linear"}
    low, high = domain["low"], domain["high"]
    ticks = [low * (high / low) ** (place / 4) for place in range(5)]
    ticks = [round(tick) if domain["whole"] else float(f"{tick:.2g}") for tick in ticks]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _influence(name: str, points: Sequence[Mapping[str, Any]]) -> float:
    """Share of the variance on the first rung that goes with the option: by its values, or by thirds of its range."""
    first = sorted((p for p in points if p["rung"] == 0), key=lambda point: str(point["values"][name]))
    if all(isinstance(point["values"][name], (int, float)) for point in first):
        first.sort(key=lambda point: point["values"][name])
    values = [point["difference"] for point in first]
    if len({point["values"][name] for point in first}) <= 6:
        keys = [str(point["values"][name]) for point in first]
    else:
        keys = [str(3 * place // len(first)) for place in range(len(first))]
    groups = [[v for v, k in zip(values, keys, strict=True) if k == key] for key in set(keys)]
    mean = fmean(values) if values else 0.0
    total = sum((value - mean) ** 2 for value in values)
    return sum(len(group) * (fmean(group) - mean) ** 2 for group in groups) / total if total else 0.0


def _drawn(figure: go.Figure, *, script: bool) -> str:
    grey = {"color": "#828282", "size": 12}
    figure.update_layout(
        height=320,
        margin={"l": 60, "r": 15, "t": 15, "b": 45},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        font=grey,
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,.2)", linecolor="#888", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,.2)", linecolor="#888")
    config = {"displayModeBar": False, "responsive": True}
    return plotly.io.to_html(figure, include_plotlyjs=script, full_html=False, config=config)


def _grid(drawn: Sequence[str]) -> str:
    return f"<div class=panels>{''.join(f'<div>{one}</div>' for one in drawn)}</div>"


def _noise(noise: float | None) -> str:
    if noise is None:
        return "With one seed, nothing is known of the noise."
    return f"The grey band is what chance among seeds does to a single run: twice its standard deviation, {noise:.4f}."


def _legend(results: Mapping[str, Any]) -> str:
    shares = results["shares"]
    said = [(f"{share:.3g} of the budget", _colour(rung)) for rung, share in enumerate(shares[:-1])]
    said += [(f"full budget, mean of {results['seeds']} seeds, with 95 % interval", _FINAL), ("the best", _BEST)]
    return "".join(f'<span class=dot style="background:{colour}"></span>{html.escape(text)}' for text, colour in said)


def _colour(rung: int) -> str:
    return _RUNGS[min(rung, len(_RUNGS) - 1)]


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
