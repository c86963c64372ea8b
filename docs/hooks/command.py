"""Reference page of the `uds` command: `<!-- command -->` is replaced by the help of all its commands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

import typer.main

MARK = "<!-- command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark by the help."""
    return markdown.replace(MARK, help_of_commands()) if MARK in markdown else markdown


def help_of_commands() -> str:
    """Return Markdown of the help of all commands."""
    from uds_adapters.lab.cli import app

    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in sorted(group.commands.items()):
        about, _, examples = (command.help or "").partition("\b\n")
        parts += [f"## uds {name}", _text(about), _examples(examples), *_tables(command)]
    return "\n\n".join(filter(None, parts))


def _tables(command: Any) -> Iterator[str]:
    """Yield a table for each panel of options."""
    shown = [one for one in command.params if not getattr(one, "hidden", False) and "--help" not in one.opts]
    panels = {getattr(one, "rich_help_panel", None) or "Options": None for one in shown}
    for panel in panels:
        rows = [_row(one) for one in shown if (getattr(one, "rich_help_panel", None) or "Options") == panel]
        yield "\n".join([f"| {panel} | default | |", "|---|---|---|", *rows])


def _row(one: Any) -> str:
    names = one.opts if one.opts[0].startswith("-") else [one.metavar or one.name.upper()]
    named = ", ".join(f"`{name}`" for name in names)
    return f"| {named} | {_default(one)} | {_text(one.help or '').replace('|', '&#124;')} |"


def _default(one: Any) -> str:
    shown = getattr(one, "show_default", None)
    if isinstance(shown, str):
        return shown
    if one.required:
        return "must be given"
    default = one.default() if callable(one.default) else one.default
    if default is None or default is False or default in ("", (), []):
        return "-"
    values = default if isinstance(default, (list, tuple)) else [default]
    return ", ".join("`" + str(value).replace("\n", r"\n") + "`" for value in values)


def _examples(written: str) -> str:
    """Return the examples as a code block."""
    lines = textwrap.dedent(written.removeprefix("Examples:\n")).strip("\n")
    return f"```\n{lines}\n```" if lines else ""


def _text(written: str) -> str:
    """Return help without rich's markup and typer's paragraph marks, options as code."""
    plain = re.sub(r"\[/?[a-z ]*\]", "", written.replace("\f", ""))
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)", r"`\1`", plain).strip()
