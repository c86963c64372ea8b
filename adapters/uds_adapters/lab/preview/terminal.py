"""Previews in the terminal: colour and a mark for what carries loss, so that they can be read without colour too."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from .tables import about, rows
from .values import Piece, Preview, Sample
from .visible import shortened, visible

__all__ = ["show"]

_WORD = "trained"
_TRAINED, _READ, _SOFT = "bold green", "default", "dim"
_NARROW = 40  # columns of text


def show(preview: Preview, console: Console, /, *, whole: bool = False) -> None:
    """Print a preview; long pieces are shortened unless `whole`."""
    signs = ("|", "#", r"\n") if console.options.ascii_only else ("│", "┃", "⏎")
    if preview.samples:
        words = Text.assemble(
            "Text marked ", (f"{_WORD} {signs[1]}", _TRAINED), " carries loss. The rest is only read."
        )
        console.print(words, soft_wrap=True)
    for sample in preview.samples:
        console.print()
        console.print(_head(sample), soft_wrap=True)
        for piece in sample.pieces:
            for line in _lines(piece, console, signs, whole=whole):
                console.print(line, soft_wrap=True)
    if preview.samples:
        console.print()
    _print_rows(preview, console)
    for note in preview.notes:
        console.print(note, soft_wrap=True, markup=False, highlight=False)


def _head(sample: Sample) -> Text:
    first, *others = about(sample)
    return Text.assemble((first, "bold"), *(f"  {words}" for words in others))


def _lines(piece: Piece, console: Console, signs: tuple[str, str, str], *, whole: bool) -> Iterator[Text]:
    """Yield the lines of a piece, each behind a bar; the first is marked `trained` where the piece carries loss."""
    style = _TRAINED if piece.trained else _READ
    bar = signs[piece.trained]
    text = visible(piece.text)
    begin, between, end = (text, "", "") if whole else shortened(text)
    label = f"{_WORD:>{len(_WORD)}}" if piece.trained else " " * len(_WORD)
    for part, own in ((begin, style), (between, _SOFT), (end, style)):
        for line in _broken(part, own, signs[2]):
            for row in _wrapped(line, console, len(_WORD) + 3):
                yield Text.assemble((f"{label} {bar} ", style if piece.trained else _SOFT), row)
                label = " " * len(_WORD)


def _broken(text: str, style: str, sign: str) -> Iterator[Text]:
    """Yield the lines of a text, each but the last with a sign for its end."""
    *lines, last = text.split("\n")
    for line in lines:
        yield Text.assemble((line, style), (sign, _SOFT))
    if last:
        yield Text(last, style)


def _wrapped(line: Text, console: Console, taken: int) -> Iterator[Text]:
    if not console.is_terminal:  # a file has no width
        yield line
        return
    yield from line.wrap(console, max(_NARROW, console.width - taken)) or [line]


def _print_rows(preview: Preview, console: Console) -> None:
    every = rows(preview)
    name = max(len(one.name) for one in every)
    value = max(len(one.value) for one in every)
    for one in every:
        text = Text.assemble(f"{one.name:<{name}}  ", (f"{one.value:>{value}}", "bold"), f"  {one.more}".rstrip())
        console.print(text, soft_wrap=True)
