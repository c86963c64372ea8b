"""Picture of the layers of a package: boxes of files, each above all that it may import."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple
from xml.sax.saxutils import escape

Boxes = dict[str, dict[str, frozenset[str]]]  # layer -> its files -> what each imports from outside

FRAMEWORKS = {  # what a file imports from outside, the rarest first: fill, line, name in the legend
    "lightning": ("#ede9fe", "#6d28d9", "Lightning"),
    "trl": ("#fef9c3", "#a16207", "Hugging Face"),
    "transformers": ("#fef9c3", "#a16207", "Hugging Face"),
    "peft": ("#fef9c3", "#a16207", "Hugging Face"),
    "accelerate": ("#fef9c3", "#a16207", "Hugging Face"),
    "optuna": ("#fce7f3", "#be185d", "Optuna, Plotly"),
    "plotly": ("#fce7f3", "#be185d", "Optuna, Plotly"),
    "pyarrow": ("#dcfce7", "#15803d", "pyarrow"),
    "torch": ("#ffedd5", "#c2410c", "PyTorch"),
    "typer": ("#dbeafe", "#1d4ed8", "Typer, Rich"),
    "rich": ("#dbeafe", "#1d4ed8", "Typer, Rich"),
}
PLAIN = ("#ffffff", "#94a3b8", "none of these packages")
FONT = 'font-family="Helvetica, Arial, sans-serif" font-size="14"'
WIDTH, MARGIN, GAP, FLOOR, LANE = 1040, 24, 20, 44, 10
CHIP, TITLE, PAD, BETWEEN = 28, 30, 12, 8

Graph = dict[str, list[str]]  # layer -> layers right below it


class Place(NamedTuple):
    """Where a box or a lane stands."""

    x: float
    y: float
    width: float
    height: float

    def port(self, x: float) -> float:
        """Return the place on the upper or lower side that is nearest to `x`."""
        edge = min(20.0, self.width / 2)
        return min(max(x, self.x + edge), self.x + self.width - edge)

    @property
    def middle(self) -> float:
        """Return the middle of its upper side."""
        return self.x + self.width / 2


def drawn(boxes: Boxes, below: Graph, *, title: str) -> str:
    """Return the SVG: a box a layer; a line leads down to the layers that it may import and that no other implies."""
    direct = {layer: sorted(_direct(layer, below)) for layer in below}
    colours = {_colour(outside) for files in boxes.values() for outside in files.values()}
    floors, links = _with_lanes(direct)
    places = _places(floors, links, boxes, top=76 if colours == {PLAIN} else 104)
    height = round(max(place.y + place.height for place in places.values()) + MARGIN)
    note = "A line leads down to what the files of a box may import, and to all below it in turn."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f"  <title>{escape(title)}</title>",
        f'  <rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'  <text x="{MARGIN}" y="32" fill="#0f172a" font-size="18" font-weight="bold">{escape(title)}</text>',
        f'  <text x="{MARGIN}" y="54" fill="#64748b">{note}</text>',
        *_legend(colours),
        *(_link(places[above], places[low]) for above in links for low in links[above]),
        *(_lane(places[name]) for name in places if name not in boxes),
        *(_box(layer, boxes[layer], places[layer]) for layer in boxes),
        "</svg>",
        "",
    ]
    return "\n".join(parts)


def _far(layer: str, below: Graph) -> set[str]:
    return set(below[layer]).union(*(_far(other, below) for other in below[layer]))


def _direct(layer: str, below: Graph) -> set[str]:
    near = set(below[layer])
    return {other for other in near if not any(other in _far(between, below) for between in near - {other})}


def _with_lanes(below: Graph) -> tuple[list[list[str]], Graph]:
    """Return floors from the top, and links from floor to floor: a line that passes a floor has a lane there.

    Layers stand as high as they can, or as low as they can, whatever needs fewer lanes. Lines to one
    layer share a lane.
    """
    users: Graph = {name: [other for other in below if name in below[other]] for name in below}
    from_top = {name: _depth(name, users) for name in below}
    from_bottom = {name: max(_depth(other, below) for other in below) - _depth(name, below) for name in below}
    floors, links = min((_lanes(levels, below) for levels in (from_top, from_bottom)), key=lambda found: len(found[1]))
    return floors, links


def _depth(name: str, graph: Graph) -> int:
    return max((_depth(other, graph) + 1 for other in graph[name]), default=0)


def _lanes(level: dict[str, int], below: Graph) -> tuple[list[list[str]], Graph]:
    floors = [[name for name in below if level[name] == floor] for floor in range(max(level.values()) + 1)]
    links: Graph = {name: [] for name in below}
    for name, others in below.items():
        for other in others:
            path = [name, *(f"{other} past {floor}" for floor in range(level[name] + 1, level[other])), other]
            for floor, lane in enumerate(path[1:-1], start=level[name] + 1):
                if lane not in floors[floor]:
                    floors[floor].append(lane)
            for above, low in pairwise(path):
                links.setdefault(above, [])
                if low not in links[above]:
                    links[above].append(low)
    return floors, links


def _places(floors: list[list[str]], links: Graph, boxes: Boxes, *, top: float) -> dict[str, Place]:
    """Order each floor so that lines cross little, then set its boxes side by side in the middle of the page."""
    joined = {name: [*links[name], *(other for other in links if name in links[other])] for name in links}
    x = {name: (i + 0.5) / len(floor) for floor in floors for i, name in enumerate(floor)}
    for _ in range(40):
        for floor in floors:
            want = {name: sum(x[other] for other in joined[name]) / max(len(joined[name]), 1) for name in floor}
            for i, name in enumerate(sorted(floor, key=lambda name: (round(want[name], 9), floor.index(name)))):
                x[name] = (i + 0.5) / len(floor)
    places: dict[str, Place] = {}
    for floor in floors:
        names = sorted(floor, key=x.__getitem__)
        widths = _widths([boxes.get(name) for name in names])
        height = max(_height(boxes[name], width) for name, width in zip(names, widths, strict=True) if name in boxes)
        left = (WIDTH - sum(widths) - GAP * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            places[name] = Place(round(left, 1), round(top, 1), round(width, 1), height)
            left += width + GAP
        top += height + FLOOR
    return places


def _chip_width(name: str) -> float:
    return 7.6 * len(name) + 18


def _widths(floor: list[dict[str, frozenset[str]] | None]) -> list[float]:
    """Share the width of the page between the boxes of a floor, so that the highest becomes as low as can be."""
    room = WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)
    least, most = [], []
    for files in floor:
        chips = [_chip_width(name) for name in files or ()]
        least.append(max(chips) + 2 * PAD if chips else LANE)
        most.append(max(sum(chips) + BETWEEN * (len(chips) - 1) + 2 * PAD, 140) if chips else LANE)
    widths = list(least)
    while True:
        narrow = [i for i in range(len(floor)) if widths[i] < most[i]]
        if not narrow or sum(widths) + 4 > room:
            return widths
        highest = max(narrow, key=lambda i: (_height(floor[i] or {}, widths[i]), -widths[i]))
        widths[highest] = min(widths[highest] + 4, most[highest])


def _wrapped(files: dict[str, frozenset[str]], width: float) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    used = 0.0
    for name in files:
        if lines[-1] and used + _chip_width(name) > width - 2 * PAD + 0.5:
            lines.append([])
            used = 0.0
        lines[-1].append(name)
        used += _chip_width(name) + BETWEEN
    return lines


def _height(files: dict[str, frozenset[str]], width: float) -> int:
    return TITLE + len(_wrapped(files, width)) * (CHIP + BETWEEN) - BETWEEN + PAD


def _link(above: Place, low: Place) -> str:
    x = above.port(low.middle)
    to_x = low.port(x)
    y, to_y = above.y + above.height, low.y
    bend = (to_y - y) / 2
    return _path(f"M{x:.1f} {y:.1f} C{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f} {to_x:.1f} {to_y:.1f}")


def _lane(place: Place) -> str:
    return _path(f"M{place.middle:.1f} {place.y:.1f} V{place.y + place.height:.1f}")


def _path(path: str) -> str:
    return f'  <path d="{path}" fill="none" stroke="#94a3b8" stroke-width="1.8"/>'


def _box(layer: str, files: dict[str, frozenset[str]], place: Place) -> str:
    x, y, width, height = place
    parts = [
        f'  <rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="#f8fafc" stroke="#64748b"/>',
        f'  <text x="{x + PAD}" y="{y + 20}" fill="#0f172a" font-weight="bold">{escape(layer)}</text>',
    ]
    for line, names in enumerate(_wrapped(files, width)):
        left, top = x + PAD, y + TITLE + line * (CHIP + BETWEEN)
        for name in names:
            fill, stroke, _ = _colour(files[name])
            parts.append(
                f'  <rect x="{left:.1f}" y="{top}" width="{_chip_width(name):.1f}" height="{CHIP}" rx="6" '
                f'fill="{fill}" stroke="{stroke}"/>\n'
                f'  <text x="{left + _chip_width(name) / 2:.1f}" y="{top + 19}" text-anchor="middle" '
                f'font-size="13" fill="#0f172a">{escape(name)}</text>'
            )
            left += _chip_width(name) + BETWEEN
    return "\n".join(parts)


def _colour(outside: frozenset[str]) -> tuple[str, str, str]:
    return next((colour for name, colour in FRAMEWORKS.items() if name in outside), PLAIN)


def _legend(colours: set[tuple[str, str, str]]) -> list[str]:
    """Name the colours that occur; nothing where there is one alone."""
    if colours == {PLAIN}:
        return []
    parts: list[str] = []
    left = MARGIN + 1.0
    for fill, stroke, name in dict.fromkeys([*FRAMEWORKS.values(), PLAIN]):
        if (fill, stroke, name) in colours:
            parts += [
                f'  <rect x="{left:.1f}" y="67" width="14" height="14" rx="4" fill="{fill}" stroke="{stroke}"/>',
                f'  <text x="{left + 20:.1f}" y="79" fill="#475569" font-size="13">{name}</text>',
            ]
            left += 7.4 * len(name) + 42
    return parts
