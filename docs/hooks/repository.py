"""Links to files of the repository, and includes of their text, in the site.

A link is written relative to the page's file, `../figures/step.svg`, so it works in the repository and in the site. A
linked file that is no page is copied into the site. Code that is the path of a file, `tests/reference.py`, links to
it. `<!-- include: benchmarks/README.md#scoring -->` is replaced by that section of that file, without its heading;
without an anchor, by the whole file. A script is converted by `literate`.
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
    ".github/CONTRIBUTING.md": "contributing.md",
    "benchmarks/quality/grid.md": "runs.md",
    "benchmarks/quality/fresh.md": "runs.md",
    "benchmarks/quality/predicted.md": "runs.md",
}
LINK = re.compile(r"(?<=\])\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
PATH = re.compile(
    r"\[[^\]]*\]\([^)]*\)|^#.*$|`((?:tests|benchmarks|adapters|uds_core|docs)/[\w./-]+\.\w+)`", flags=re.MULTILINE
)
INCLUDE = re.compile(r"^<!-- include: (\S+?)(?:#(\S+))? -->$", flags=re.MULTILINE)
FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Any, *, config: Any) -> Any:
    """Add the files outside of the pages' folder that pages link to."""
    from mkdocs.structure.files import File

    for page in PAGES.rglob("*.md"):
        for file in linked(text(page)):
            uri = place(file)
            if not uri.endswith(".md") and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Insert the includes of a page, and point its links to the places of files in the site."""
    here = Path(page.file.src_uri).parent
    whole = included(markdown, PAGES / page.file.src_uri)
    return _outside_of_code(whole, lambda part: LINK.sub(lambda match: _turned(match, here), part))


def text(page: Path) -> str:
    """Return the Markdown of a page with its includes; links are paths from the repository's root, with a slash."""
    return included(page.read_text(encoding="utf-8"), page)


def included(markdown: str, origin: Path) -> str:
    """Return `markdown` of the file `origin` with its includes; links are absolute."""

    def section(match: re.Match[str]) -> str:
        file = ROOT / match[1]
        found = literate.page(file) if file.suffix == ".py" else file.read_text(encoding="utf-8")
        return included(found if match[2] is None else _section(found, match[2], file), file)

    def absolute(match: re.Match[str]) -> str:
        return f"(/{os.path.relpath(origin.parent / match[1], ROOT)}{match[2] or ''})"

    rooted = _outside_of_code(markdown, lambda part: PATH.sub(_path_link, LINK.sub(absolute, part)))
    return INCLUDE.sub(section, rooted)


def linked(markdown: str) -> set[Path]:
    """Return the files that absolute links in a text lead to."""
    found: set[Path] = set()

    def note(part: str) -> str:
        found.update(ROOT / match[1].lstrip("/") for match in LINK.finditer(part))
        return part

    _outside_of_code(markdown, note)
    return {file for file in found if file.is_file()}


def place(file: Path) -> str:
    """Return the place of a file of the repository in the site."""
    inside = file.resolve().relative_to(ROOT).as_posix()
    for folder in ("docs/pages/", "docs/"):
        if inside.startswith(folder):
            return inside.removeprefix(folder)
    return SHOWN.get(inside, f"files/{inside}")


def anchor_of(heading: str) -> str:
    """Return the anchor that Markdown gives a heading."""
    plain = re.sub(r"[^\w\s-]", "", unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode())
    return re.sub(r"[-\s]+", "-", plain.strip().lower())


def anchors(markdown: str) -> set[str]:
    """Return all anchors of headings in a text."""
    return {anchor_of(title) for title in re.findall(r"^#+ (.*)$", FENCE.sub("", markdown), flags=re.MULTILINE)}


def _path_link(match: re.Match[str]) -> str:
    """Return code that is the path of a file as a link to it; existing links and headings unchanged."""
    return f"[{match[0]}](/{match[1]})" if match[1] and (ROOT / match[1]).is_file() else match[0]


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
