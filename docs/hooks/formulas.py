"""Formulas as MathML, made while the site is built and set in STIX Two Math, a font of the site itself.

A reader's browser runs no script for them and fetches nothing from elsewhere. The font is that of `ziamath`, cut down
to the characters that occur.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import ziamath
from fontTools import subset
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)
CORRECTIONS = (  # of what browsers draw too large, too close or too small
    (r"<mo[^>]*>&#x02016;</mo>", '<mo stretchy="false" lspace="0" rspace="0">&#x02016;</mo>'),
    (r"<mo[^>]*>&#x000AF;</mo>", '<mo stretchy="false" accent="true">&#x0203E;</mo>'),
    (r"<mi>(log|ln|exp|cos|max|min|tanh)</mi>(?=<m(?!o))", r'<mi>\1</mi><mspace width="0.17em"/>'),
)
FONT = Path(str(ziamath.__file__)).parent / "fonts" / "STIXTwoMath-Regular.ttf"

_characters: set[str] = set()


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula."""
    return FORMULA.sub(lambda match: formula(match[3], block=match[2] == "["), content)


def on_post_build(*, config: Any) -> None:
    """Write the font with the characters that occur."""
    options = subset.Options(flavor="woff", layout_features=["*"])
    font = subset.load_font(str(FONT), options)
    cut = subset.Subsetter(options)
    cut.populate(text="".join(sorted(_characters)) + "0123456789()[]{}|‖√")
    cut.subset(font)
    folder = Path(config.site_dir) / "assets"
    subset.save_font(font, str(folder / "stix.woff"), options)


def formula(latex: str, *, block: bool) -> str:
    """Return MathML of a formula; one wider than the page scrolls."""
    latex = re.sub(r"\s+", " ", html.unescape(latex)).strip()
    made = convert(latex, display="block" if block else "inline")
    for pattern, better in CORRECTIONS:
        made = re.sub(pattern, better, made)
    made = made.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)
    _characters.update(html.unescape(re.sub(r"<[^>]*>", "", made)))
    return f'<div class="formula">{made}</div>' if block else made
