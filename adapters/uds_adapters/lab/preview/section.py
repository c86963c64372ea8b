"""Previews as HTML: a part of a page, and the style that it needs."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

from .tables import about, rows
from .values import Piece, Preview, Sample
from .visible import visible

__all__ = ["section", "style"]

_LEGEND = "Text <mark>marked like this</mark> carries loss. The rest is only read."


def section(preview: Preview, /) -> str:
    """Return a preview as HTML, without JavaScript."""
    legend = f'<p class="note">{_LEGEND}</p>' if preview.samples else ""
    notes = f'<p class="note">{escape(" ".join(preview.notes))}</p>' if preview.notes else ""
    shown = "".join(map(_sample, preview.samples))
    return f'<div class="preview">{_table(preview)}{notes}{legend}{shown}</div>'


def style() -> str:
    """Return the style sheet, which uses the colours of the report."""
    return resources.files(str(__package__)).joinpath("web", "preview.css").read_text(encoding="utf-8")


def _table(preview: Preview) -> str:
    return f"<table><tbody>{''.join(_row(one) for one in rows(preview))}</tbody></table>"


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _sample(sample: Sample) -> str:
    first, *others = map(escape, about(sample))
    words = f"<b>{first}</b>" + "".join(f"<span>{other}</span>" for other in others)
    return f'<article class="sample"><header>{words}</header><pre>{"".join(map(_piece, sample.pieces))}</pre></article>'


def _piece(piece: Piece) -> str:
    text = escape(visible(piece.text))
    return f"<mark>{text}</mark>" if piece.trained else text
