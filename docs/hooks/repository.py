"""Links and texts of the repository in the site: a page may link to any file, and show a part of one.

A link is written as it works in the repository, `../figures/step.svg`, and so works in both places. What it leads to
and is no page is copied into the site. `<!-- include: benchmarks/README.md#scoring -->` stands for that section of that
file, without its heading; without an anchor, for the whole file. A script is shown as `literate` tells it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import literate

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
SHOWN = {  # files of the repository that are pages of the site, whole
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
LINK = re.compile(r"(?<=\])\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
INCLUDE = re.compile(r"^<!-- include: (\S+?)(?:#(\S+))? -->$", flags=re.MULTILINE)
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Any, *, config: Any) -> Any:
    """Take in what pages link to outside of their folder."""
    from mkdocs.structure.files import File

    for page in PAGES.rglob("*.md"):
        for file in linked(text(page)):
            uri = place(file)
            if not uri.endswith(".md") and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put in what the page includes, and turn its links to where files are in the site."""
    here = Path(page.file.src_uri).parent
    whole = included(markdown, PAGES / page.file.src_uri)
    return _outside_of_code(whole, lambda part: LINK.sub(lambda match: _turned(match, here), part))


def text(page: Path) -> str:
    """The Markdown of a page with all that it includes; links are paths from the repository's root, with a slash."""
    return included(page.read_text(encoding="utf-8"), page)


def included(markdown: str, origin: Path) -> str:
    """`markdown` of the file `origin`, with its includes, links made absolute."""

    def section(match: re.Match[str]) -> str:
        file = ROOT / match[1]
        found = literate.page(file) if file.suffix == ".py" else file.read_text(encoding="utf-8")
        return included(found if match[2] is None else _section(found, match[2], file), file)

    def absolute(match: re.Match[str]) -> str:
        return f"(/{os.path.relpath(origin.parent / match[1], ROOT)}{match[2] or ''})"

    rooted = _outside_of_code(markdown, lambda part: LINK.sub(absolute, part))
    return INCLUDE.sub(section, rooted)


def linked(markdown: str) -> set[Path]:
    """Files that a text with absolute links leads to."""
    found: set[Path] = set()

    def note(part: str) -> str:
        found.update(ROOT / match[1].lstrip("/") for match in LINK.finditer(part))
        return part

    _outside_of_code(markdown, note)
    return {file for file in found if file.is_file()}


def place(file: Path) -> str:
    """Where a file of the repository is in the site."""
    inside = file.resolve().relative_to(ROOT).as_posix()
    for folder in ("docs/pages/", "docs/"):
        if inside.startswith(folder):
            return inside.removeprefix(folder)
    return SHOWN.get(inside, f"files/{inside}")


def anchor_of(heading: str) -> str:
    """The anchor that Markdown gives a heading."""
    plain = re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode())
    return re.sub(r"[-\s]+", "-", plain.strip().lower())


def anchors(markdown: str) -> set[str]:
    """All anchors of headings in a text."""
    return {anchor_of(title) for title in re.findall(r"^#+ (.*)$", FENCE.sub("", markdown), flags=re.MULTILINE)}


def _turned(match: re.Match[str], here: Path) -> str:
    file = ROOT / match[1].lstrip("/")
    if not file.is_file():
        msg = f"a link leads to {match[1]}, which is no file of the repository"
        raise ValueError(msg)
    return f"({os.path.relpath(place(file), here)}{match[2] or ''})"


def _section(markdown: str, anchor: str, file: Path) -> str:
    headings = [*re.finditer(r"^(#+) (.*)$", FENCE.sub(lambda m: "\n" * m[0].count("\n"), markdown), re.MULTILINE)]
    lines = markdown.splitlines()
    for number, heading in enumerate(headings):
        if anchor_of(heading[2]) == anchor:
            start = heading.string.count("\n", 0, heading.start())
            after = [h for h in headings[number + 1 :] if len(h[1]) <= len(heading[1])]
            end = after[0].string.count("\n", 0, after[0].start()) if after else len(lines)
            return "\n".join(lines[start + 1 : end]).strip("\n")
    msg = f"{file} has no section #{anchor}"
    raise ValueError(msg)


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])
