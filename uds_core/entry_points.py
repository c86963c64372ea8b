"""Policies that other installed packages bring, in their entry points. None is imported before it is asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["GROUP", "declared", "load"]

GROUP = "uds_core.policies"


def declared() -> list[str]:
    """Names of the policies that installed packages declare, sorted; whether they can be loaded is not known yet."""
    return sorted({point.name for point in _points()})


def load(name: str, /) -> Any:
    """What an installed package declares as the policy `name`, imported now.

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

    return metadata.entry_points(group=GROUP)


def _package(point: "EntryPoint") -> str:
    return "of unknown name" if point.dist is None else point.dist.name
