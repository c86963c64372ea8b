"""Docstrings as Markdown: their formulas, which are written for Sphinx, become formulas of the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

MATH = re.compile(r"^( *)\.\. math::[ \n]+(.*?)(?=\n\s*\n|\Z)", flags=re.MULTILINE | re.DOTALL)


class Formulas(griffe.Extension):
    """Turns ``.. math::`` into what the extension `arithmatex` reads."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Called for each object that is documented."""
        if obj.docstring:
            obj.docstring.value = MATH.sub(lambda match: f"$${' '.join(match[2].split())}$$", obj.docstring.value)
