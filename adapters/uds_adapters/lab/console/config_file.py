"""Options of a command in a YAML file, with the long option names as keys."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from .. import storage
from ..errors import LabError

__all__ = ["FILE", "continued", "known", "loaded", "read", "resolved", "unchanged", "write"]

FILE = "config.yaml"
"""Name of the file of options in an output folder."""

_ONCE = frozenset({"config", "resume", "overwrite", "json", "help"})  # options of a call, not of a run


def loaded(context: typer.Context, path: Path | None) -> Path | None:
    """Take options from the file of `--config`, where the command line has none.

    Raises
    ------
    LabError
        If the file cannot be read, or holds a key that is no option of the command.
    """
    if path is not None and not context.resilient_parsing:
        _take(context, read(path, known=known(context)))
    return path


def continued(context: typer.Context, folder: Path | None) -> Path | None:
    """Take the options that the run in the folder of `--resume` was started with.

    Raises
    ------
    LabError
        If the folder holds no configuration that can be read.
    """
    if folder is not None and not context.resilient_parsing:
        if not (folder / FILE).is_file():
            msg = f"`--resume` {folder}: no {FILE} there: expected the output folder of a run that was started before"
            raise LabError(msg)
        _take(context, {**read(folder / FILE, known=known(context)), "output": str(folder)})
    return folder


def resolved(context: typer.Context) -> dict[str, Any]:
    """Return all options of this call, defaults included, for `write`; those that are None are left out.

    Paths are absolute, so that the file is of use from any folder.
    """
    values = {option: context.params.get(name) for option, name in known(context).items()}
    return {option: _plain(value) for option, value in values.items() if value not in (None, [], ())}


def unchanged(context: typer.Context, folder: Path, /, *, free: Collection[str]) -> None:
    """Raise an error if options differ from those the run in `folder` was started with, except the `free` ones.

    A file or folder that is no longer where it was may be given anew.

    Raises
    ------
    LabError
        Names the options.
    """
    before, now = read(folder / FILE, known=known(context)), resolved(context)
    names = (before.keys() | now.keys()) - {*free, "output"}
    paths = {option for option, name in known(context).items() if isinstance(context.params.get(name), Path)}
    other = sorted(name for name in names if not _same(before.get(name), now.get(name), path=name in paths))
    if Path(str(now.get("output"))).resolve() != folder.resolve():
        other.append("output")
    if other:
        flags = ", ".join("--" + name.replace("_", "-") for name in other)
        msg = (
            f"`--resume` {folder}: {flags} would make it another run: leave that out, or start anew with `--output`. "
            f"Free to change: {', '.join('--' + name.replace('_', '-') for name in free)}"
        )
        raise LabError(msg)


def known(context: typer.Context) -> dict[str, str]:
    """Return the keys that a file may hold, long options with underscores, each with its name in typer."""
    named = {max(p.opts, key=len).lstrip("-").replace("-", "_"): p.name for p in context.command.params if p.name}
    return {option: name for option, name in named.items() if option not in _ONCE}


def write(values: Mapping[str, Any], path: Path, /, *, note: str = "") -> None:
    """Write `values` as YAML, below `note` as a comment."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in note.splitlines())
    storage.write(path, head + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def read(path: Path, /, *, known: Collection[str]) -> dict[str, Any]:
    """Return the options in a file.

    Raises
    ------
    LabError
        If it cannot be read, or holds a key that is not among the `known`.
    """
    if not path.is_file():
        msg = f"`--config`: no file {path}: expected YAML, one option a line, as in `keep: 0.25`"
        raise LabError(msg)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        msg = f"{path} is not YAML: {' '.join(str(error).split())}"
        raise LabError(msg) from None
    if not isinstance(values, dict):
        msg = f"{path}: expected one option a line, as in `keep: 0.25`, got {type(values).__name__}"
        raise LabError(msg)
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    unknown = [name for name in named if name not in known]
    if unknown:
        msg = f"{path}: unknown key {', '.join(map(repr, unknown))}; known: {', '.join(sorted(known))}"
        raise LabError(msg)
    return {name: _words(value) for name, value in named.items() if value is not None}


def _same(before: Any, now: Any, *, path: bool) -> bool:
    if not path or before is None or now is None:
        return before == now
    return Path(str(before)).resolve() == Path(str(now)).resolve() or not Path(str(before)).exists()


def _take(context: typer.Context, values: Mapping[str, Any]) -> None:
    named = known(context)
    context.default_map = {**(context.default_map or {}), **{named[option]: value for option, value in values.items()}}


class _Loader(yaml.SafeLoader):
    """A loader that refuses duplicate keys, of which YAML takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, each key once."""
        keys = [key.value for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice.pop()!r} comes twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def _words(value: Any) -> Any:
    """Return a mapping as the command line has it, `name=value` several times."""
    if isinstance(value, dict):
        return [f"{name}={item if isinstance(item, str) else json.dumps(item)}" for name, item in value.items()]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value
