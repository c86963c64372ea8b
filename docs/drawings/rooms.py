"""Tables of the architecture page: the layers, which are the rule, and the files, which are written from the code.

python docs/drawings/rooms.py             # draw docs/figures/rooms_*.svg from the tables of layers
python docs/drawings/rooms.py --update    # first write the tables of files from the code
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import file_imports
import layer_picture

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "pages" / "architecture.md"
PARTS = {  # heading of a pair of tables -> package, and its folder
    "uds_core": ("uds_core", ""),
    "uds_adapters": ("uds_adapters", ""),
    "uds_adapters/lab": ("uds_adapters", "lab/"),
}
TITLES = {
    "uds_core": "uds_core: mathematics on arrays",
    "uds_adapters": "uds_adapters: policies in training loops",
    "uds_adapters/lab": "uds_adapters/lab: the uds command",
}
_LAYERS = r"^\| layer of `{}` \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
_FILES = r"(<!-- files of {}: [^>]*-->\n\n)((?:\|.*\n)*)"


class Layer(NamedTuple):
    """A row of a table of layers."""

    members: tuple[str, ...]  # files without their ending, folders with a slash, patterns with a star
    below: tuple[str, ...]  # layers that it may import, and with them all that those may import
    outside: frozenset[str]  # packages from outside that it may import


def layers(page: str, part: str) -> dict[str, Layer]:
    """Read the table of layers of a part; its rows stand from the top to the bottom."""
    (body,) = re.findall(_LAYERS.format(part), page, flags=re.MULTILINE)
    found = {}
    for line in body.splitlines():
        name, members, below, outside = (_names(cell) for cell in line.strip("|").split(" | "))
        found[name[0]] = Layer(tuple(members), tuple(below), frozenset(outside))
    return found


def files(part: str) -> dict[str, str]:
    """Return each file of a part, as its tables name it -> file of its package; `lab/` is a part of its own."""
    package, folder = PARTS[part]
    names = [name for name in file_imports.files(package) if name.startswith(folder)]
    others = [
        other for other, (of, inner) in PARTS.items() if of == package and inner.startswith(folder) and other != part
    ]
    inner = tuple(PARTS[other][1] for other in others)
    return {name.removeprefix(folder): name for name in names if not (inner and name.startswith(inner))}


def layer_of(name: str, found: dict[str, Layer]) -> str:
    """Return the layer with the most exact member for a file (itself, a pattern or its folder), or "" for none."""
    members = [(member, layer) for layer, row in found.items() for member in row.members]
    fits = [pair for pair in members if fnmatch(name, pair[0] + "*" * pair[0].endswith("/"))]
    return max(fits, key=lambda pair: (pair[0] == name, len(pair[0])))[1] if fits else ""


def allowed(layer: str, found: dict[str, Layer]) -> set[str]:
    """Return the layers that a layer may import, near and far, itself included."""
    return {layer}.union(*(allowed(below, found) for below in found[layer].below if below in found))


def written(part: str) -> str:
    """Return the table of files of a part, as the code is now."""
    package, folder = PARTS[part]
    read = file_imports.imports(package)
    outside = part != "uds_core"
    lines = [
        f"| file of `{part}` | holds | imports of ours |" + " from outside |" * outside,
        "|---|---|---|" + "---|" * outside,
    ]
    for short, name in sorted(files(part).items(), key=lambda item: _order(item[0])):
        holds = file_imports.summary(file_imports.files(package)[name])
        cells = [f"**{holds}**" if short.endswith("/__init__") else holds]
        cells.append(_list(_shown(other, folder) for other in read[name].ours))
        if outside:
            cells.append(_list(read[name].outside - {"uds_core"}))
        lines.append(f"{cell(short)} {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def table(page: str, part: str) -> str:
    """Return the table of files of a part, as the page has it."""
    return re.findall(_FILES.format(part), page)[0][1]


def updated(page: str) -> str:
    """Return the page with its tables of files written anew."""
    for part in PARTS:
        text = written(part)
        page = re.sub(_FILES.format(part), lambda match, text=text: match[1] + text, page)
    return page


def picture(page: str, part: str) -> tuple[str, str]:
    """Return a file of docs/figures and its content: layers above those that they may import, with their files."""
    found = layers(page, part)
    read = file_imports.imports(PARTS[part][0])
    boxes: dict[str, dict[str, frozenset[str]]] = {layer: {} for layer in found}
    for short, name in sorted(files(part).items(), key=lambda item: item[0].endswith("__init__")):
        layer, is_face = layer_of(short, found), short.endswith("__init__")
        if not layer:
            msg = f"{short}.py is in no layer of {PAGE.name}: add it to a line of the table `layer of {part}`"
            raise SystemExit(msg)
        box = boxes[layer]
        if not is_face or all(other.endswith("__init__") for other in box):
            box[short if is_face else short.rsplit("/", 1)[-1]] = read[name].outside
    graph = {layer: list(row.below) for layer, row in found.items()}
    name = part.rsplit("/", 1)[-1].removeprefix("uds_")
    return f"rooms_{name}.svg", layer_picture.drawn(boxes, graph, title=TITLES[part])


def cell(short: str) -> str:
    """Return the first cell of a file's line; a folder's `__init__` stands for the folder."""
    folder = short.removesuffix("__init__")
    return f"| **`{folder}`** |" if folder.endswith("/") else f"| `{short}.py` |"


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _order(short: str) -> tuple[bool, str, bool, str]:
    """Files before folders, and a folder's own line before its files."""
    folder, _, file = short.rpartition("/")
    return (bool(folder), folder, file != "__init__", file)


def _shown(name: str, folder: str) -> str:
    """Return a file as the table names it: in a folder's table, files outside of the folder with their package."""
    inside = name.removeprefix(folder) if name.startswith(folder) else f"uds_adapters/{name}"
    return inside.removesuffix("/__init__") + "/" * inside.endswith("/__init__")


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "-"


if __name__ == "__main__":
    if "--update" in sys.argv[1:]:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    for name in TITLES:
        file, text = picture(PAGE.read_text(encoding="utf-8"), name)
        (DOCS / "figures" / file).write_text(text, encoding="utf-8")
