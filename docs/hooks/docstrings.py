"""Formulas of docstrings: converted from Sphinx to Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

MATH = re.compile(r"^( *)\.\. math::[ \n]+(.*?)(?=\n\s*\n|\Z)", flags=re.MULTILINE | re.DOTALL)


class Formulas(griffe.Extension):
    """Convert ``.. math::`` to the form that the extension `arithmatex` reads."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Convert the docstring of a documented object."""
        if obj.docstring:
            obj.docstring.value = MATH.sub(lambda match: f"$${' '.join(match[2].split())}$$", obj.docstring.value)
