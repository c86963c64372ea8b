"""Imports of each file of a package, read from its source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = {"uds_core": ROOT / "uds_core", "uds_adapters": ROOT / "adapters" / "uds_adapters"}


class Imports(NamedTuple):
    """What one file imports: files of its own package, and packages from outside of the standard library."""

    ours: frozenset[str]
    outside: frozenset[str]


def files(package: str) -> dict[str, Path]:
    """Return name -> path of each file: `policies/uds`, `lab/cli`; of a folder's `__init__.py`: `policies/__init__`."""
    root = PACKAGES[package]
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.py"))}


def imports(package: str) -> dict[str, Imports]:
    """Return what each file of the package imports, wherever in the file the `import` stands."""
    known = files(package)
    return {name: _read(path, name, package, set(known)) for name, path in known.items()}


def summary(path: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0].rstrip(".")


def circle(graph: dict[str, Imports], start: str) -> list[str]:
    """Return a path of imports from a file back to itself, or an empty list; imports for types count."""
    paths = [[start]]
    seen: set[str] = set()
    while paths:
        path = paths.pop()
        for name in sorted(graph[path[-1]].ours - seen):
            if name == start:
                return [*path, start]
            seen.add(name)
            paths.append([*path, name])
    return []


def _read(path: Path, name: str, package: str, known: set[str]) -> Imports:
    ours: set[str] = set()
    outside: set[str] = set()
    for module, member in _imported(path, package, folder=name.split("/")[:-1]):
        if module[0] == package:
            ours.add(_file(module[1:], member, known))
        else:
            outside.add(module[0])
    return Imports(frozenset(ours - {name}), frozenset(outside - set(sys.stdlib_module_names)))


def _imported(path: Path, package: str, *, folder: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the absolute module, as its parts, and the member of each import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = node.module.split(".") if node.module else []
            above = [package, *folder[: len(folder) + 1 - node.level]] if node.level else []
            yield from (([*above, *named], alias.name) for alias in node.names)


def _file(module: list[str], member: str, known: set[str]) -> str:
    """Return the file that an import of ours reads: the member where it is a file, else the module or its folder."""
    choices = [[*module, member], [*module, member, "__init__"], module, [*module, "__init__"]]
    return next("/".join(parts) for parts in choices if "/".join(parts) in known)
