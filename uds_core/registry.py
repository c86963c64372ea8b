"""Policies by name: registered here, or declared by installed packages as entry points."""

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .policy import Policy

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

_GROUP = "uds_core.policies"

_POLICIES: dict[str, Callable[..., Policy]] = {}

_P = TypeVar("_P", bound=Callable[..., Any])


def register(name: str, /) -> Callable[[_P], _P]:
    """Make a policy available to `get` under `name` (lower case, no separators).

    A package of its own needs no decorator, and need not be imported, if it declares its policies as entry points:
    ``[project.entry-points."uds_core.policies"]``, ``name = "module:Class"``.

    Raises
    ------
    ValueError
        Where the name is taken, or is none.
    """

    def add(policy: _P) -> _P:
        if name in _POLICIES and _POLICIES[name] is not policy:
            msg = f"a policy named {name!r} exists: {_POLICIES[name]!r}; choose another name"
            raise ValueError(msg)
        _POLICIES[name] = policy
        return policy

    if name != name.lower() or not name.isalnum():
        msg = f"policy names are lower case without separators, got {name!r}"
        raise ValueError(msg)
    return add


def get(name: str, /) -> Callable[..., Policy]:
    """Return the policy class registered as `name`, or declared under it by an installed package (see `register`).

    Raises
    ------
    ValueError
        Where there is none, or several packages declare it.
    ImportError, TypeError
        Where the package that declares it is broken.
    """
    if name not in _POLICIES:
        if name not in _declared():
            near = difflib.get_close_matches(str(name), names(), n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            msg = f"unknown policy {name!r}{meant}; known: {', '.join(names())}"
            raise ValueError(msg)
        register(name)(_load(name))
    return _POLICIES[name]


def names() -> list[str]:
    """Return all names that `get` knows, sorted, also those of installed packages, without importing these."""
    return sorted({*_POLICIES, *_declared()})


def name_of(policy: Any, /) -> str | None:
    """Return the name under which `get` returns the class of `policy`; None where it has none."""
    return next((name for name, known in _POLICIES.items() if known is type(policy)), None)


def _declared() -> list[str]:
    """Return the sorted names of policies that installed packages declare, whether they can be loaded or not."""
    return sorted({point.name for point in _points()})


def _load(name: str, /) -> Any:
    """Import and return the policy that an installed package declares as `name`.

    Raises
    ------
    ValueError
        Where several packages declare that name.
    ImportError
        Where it cannot be imported; the package is named, and its own error is the cause.
    TypeError
        Where it makes nothing.
    """
    points = list(_points().select(name=name))
    packages = sorted({_package(point) for point in points})
    if len(packages) > 1:
        msg = f"several packages bring a policy {name!r}: {', '.join(packages)}: uninstall all but one"
        raise ValueError(msg)
    point = points[0]
    origin = f"the policy {name!r} of the package {packages[0]} ({point.value})"
    try:
        policy = point.load()
    except Exception as error:  # whatever a foreign package raises when it is imported
        msg = f"{origin} could not be loaded: {type(error).__name__}: {error}"
        raise ImportError(msg) from error
    if not callable(policy):
        msg = f"{origin} must be a class that makes policies, got {policy!r}"
        raise TypeError(msg)
    return policy


def _points() -> "EntryPoints":
    from importlib import metadata  # takes as long as the rest of the package, and is seldom needed

    return metadata.entry_points(group=_GROUP)


def _package(point: "EntryPoint") -> str:
    return "of unknown name" if point.dist is None else point.dist.name
