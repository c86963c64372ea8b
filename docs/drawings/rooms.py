"""The tables of rooms in docs/pages/architecture.md, read; and their pictures, made of nothing else.

python docs/drawings/rooms.py    # draws docs/figures/rooms_core.svg and rooms_adapters.svg anew
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "pages" / "architecture.md"
COLOURS = {  # what a room imports from outside, the rarest first
    "lightning": ("#ede9fe", "#6d28d9"),
    "trl": ("#fef9c3", "#a16207"),
    "transformers": ("#fef9c3", "#a16207"),
    "pyarrow": ("#dcfce7", "#15803d"),
    "torch": ("#ffedd5", "#c2410c"),
    "": ("#f1f5f9", "#475569"),
}
LEGEND = "uds_adapters: orange imports PyTorch, yellow Hugging Face, violet Lightning, green pyarrow, grey nothing"
CORE = ("#dbeafe", "#1d4ed8")
FONT = 'font-family="Helvetica, Arial, sans-serif" font-size="15"'
WIDTH, BOX, HEIGHT, FLOOR = 1040, 122, 40, 92


class Room(NamedTuple):
    """A row of a table: what a file may import."""

    ours: frozenset[str]
    outside: frozenset[str]


def tables(page: str) -> dict[str, dict[str, Room]]:
    """Package -> file without its ending -> what it imports, as the page's tables say; folders are left out."""
    found: dict[str, dict[str, Room]] = {}
    for package, body in re.findall(r"^\| file of `(\w+)` \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, flags=re.MULTILINE):
        rows = [[cell.strip("`| ") for cell in line.split(" | ")] for line in body.splitlines()]
        found[package] = {
            file.removesuffix(".py"): Room(_names(ours), _names(*outside))
            for file, _, ours, *outside in rows
            if file.endswith(".py")
        }
    return found


def picture(rooms: dict[str, Room], *, title: str, roof: str = "") -> str:
    """The rooms as SVG: each stands above all that it imports; an arrow that others imply is left out."""
    floors = _floors(rooms)
    places = _places(floors, rooms, top=110 if roof else 50)
    height = max(y for _, y in places.values()) + HEIGHT + 30
    edges = [(name, below) for name in rooms for below in sorted(_direct(name, rooms))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f"  <title>{title}</title>",
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'  <text x="24" y="30" fill="#64748b" font-size="14">{title}</text>',
    ]
    if roof:
        parts += [
            f'  <rect x="24" y="50" width="{WIDTH - 48}" height="{HEIGHT}" rx="8" fill="#1d4ed8"/>',
            f'  <text x="{WIDTH // 2}" y="75" text-anchor="middle" fill="#ffffff" font-weight="bold">{roof}</text>',
        ]
    parts += [_line(places[above], places[below]) for above, below in edges]
    parts += [_box(name, places[name], _colour(rooms[name]) if not roof else CORE) for name in rooms]
    return "\n".join([*parts, "</svg>", ""])


def pictures(page: str) -> dict[str, str]:
    """File of docs/figures -> what is to be in it."""
    found = tables(page)
    core = picture(found["uds_core"], title="uds_core: a line leads down to what a file imports", roof="policies/")
    adapters = picture(found["uds_adapters"], title=LEGEND)
    return {"rooms_core.svg": core, "rooms_adapters.svg": adapters}


def _names(*cells: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", " ".join(cells)))


def _below(name: str, rooms: dict[str, Room]) -> set[str]:
    """All that a room stands on, near and far."""
    near = rooms[name].ours & set(rooms)
    return set(near).union(*(_below(other, rooms) for other in near))


def _direct(name: str, rooms: dict[str, Room]) -> set[str]:
    near = rooms[name].ours & set(rooms)
    return {other for other in near if not any(other in _below(between, rooms) for between in near - {other})}


def _floors(rooms: dict[str, Room]) -> list[list[str]]:
    """From the top: a room stands right below the lowest that imports it."""
    height: dict[str, int] = {}
    users = {name: [other for other in rooms if name in rooms[other].ours] for name in rooms}

    def depth(name: str) -> int:
        return 1 + max((depth(other) for other in rooms[name].ours & set(rooms)), default=-1)

    def of(name: str) -> int:
        if name not in height:
            height[name] = min((of(other) for other in users[name]), default=depth(name) + 1) - 1
        return height[name]

    top = max(map(of, rooms))
    return [[name for name in rooms if height[name] == floor] for floor in range(top, -1, -1)]


def _places(floors: list[list[str]], rooms: dict[str, Room], *, top: int) -> dict[str, tuple[float, float]]:
    """The middle of the upper side of each box; floors are ordered so that lines cross little."""
    x = {name: (i + 0.5) / len(floor) for floor in floors for i, name in enumerate(floor)}
    joined = {name: _direct(name, rooms) | {n for n in rooms if name in _direct(n, rooms)} for name in rooms}
    for _ in range(40):
        for floor in floors:
            near = {name: [x[n] for n in joined[name]] or [x[name]] for name in floor}
            want = {name: sum(near[name]) / len(near[name]) for name in floor}
            for i, name in enumerate(sorted(floor, key=lambda name: (want[name], name))):
                x[name] = (i + 0.5) / len(floor)
    left, room = 24 + BOX / 2, WIDTH - 48 - BOX
    places = {}
    for row, floor in enumerate(floors):
        step = room / max(len(floor) - 1, 1) if len(floor) > 4 else room / (len(floor) + 1)
        start = left if len(floor) > 4 else left + step
        for i, name in enumerate(sorted(floor, key=x.__getitem__)):
            places[name] = (round(start + i * step, 1), top + row * FLOOR)
    return places


def _line(above: tuple[float, float], below: tuple[float, float]) -> str:
    (x, y), (to_x, to_y) = (above[0], above[1] + HEIGHT), below
    bend = (to_y - y) / 2
    path = f"M{x} {y} C{x} {y + bend} {to_x} {to_y - bend} {to_x} {to_y}"
    return f'  <path d="{path}" fill="none" stroke="#94a3b8" stroke-width="1.5"/>'


def _box(name: str, place: tuple[float, float], colours: tuple[str, str]) -> str:
    (x, y), (fill, line) = place, colours
    size = ' font-size="13"' if len(name) > 12 else ""
    return (
        f'  <rect x="{x - BOX / 2}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="8" fill="{fill}" stroke="{line}"/>\n'
        f'  <text x="{x}" y="{y + 25}" text-anchor="middle" fill="#0f172a"{size}>{name}</text>'
    )


def _colour(room: Room) -> tuple[str, str]:
    return next(colour for name, colour in COLOURS.items() if name in room.outside or not name)


if __name__ == "__main__":
    for file, text in pictures(PAGE.read_text(encoding="utf-8")).items():
        (DOCS / "figures" / file).write_text(text, encoding="utf-8")
