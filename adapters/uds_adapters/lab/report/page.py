"""HTML of the report: a template filled with style, scripts and data, so that nothing is loaded."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from ..preview.section import section, style
from ..preview.values import Preview
from .view import view

__all__ = ["filled", "page", "preview_page"]

# in this order: each script uses those before it
_SCRIPTS = (
    "charts.js",
    "controls.js",
    "outcome.js",
    "choices.js",
    "records.js",
    "page.js",
)


def page(results: Mapping[str, Any], /, *, name: str = "results") -> str:
    """Return the page of one comparison; see `view` for `results`."""
    return filled([view(results, name=name)])


def filled(views: Sequence[Mapping[str, Any]], /) -> str:
    """Return the page of one view, or of several with a menu."""
    parts = {
        "verdict": html.escape(" ".join(views[0]["verdict"])),  # for readers without JavaScript
        "style": _file("style.css") + style(),
        "scripts": "\n".join(map(_file, _SCRIPTS)),
        "data": json.dumps(views, allow_nan=False, ensure_ascii=False).replace("<", r"\u003c"),
    }
    return _filled("page.html", parts)


def preview_page(preview: Preview, /, *, title: str) -> str:
    """Return the page of a preview alone."""
    parts = {"title": html.escape(title), "style": _file("style.css") + style(), "preview": section(preview)}
    return _filled("preview.html", parts)


def _filled(name: str, parts: Mapping[str, str]) -> str:
    pieces = _file(name).split("@@")  # text and names of parts alternate
    return "".join(piece if n % 2 == 0 else parts[piece] for n, piece in enumerate(pieces))


def _file(name: str) -> str:
    return resources.files(str(__package__)).joinpath("web", name).read_text(encoding="utf-8")
