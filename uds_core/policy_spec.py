"""Policies from text, as in ``uds:keep=0.25,alpha=auto`` or ``predicted:entropy,keep=0.25``."""

import inspect
import json
from typing import Any

from .policy import Policy
from .registry import get, names


def parse_policy(spec: str, /) -> tuple[str, dict[str, Any]]:
    """Return name and options of ``name:option=value,option=value``; values as `parse_value` reads them.

    A first part without a value, as in ``predicted:entropy``, is the option `policy`: the policy inside of that one.

    Raises
    ------
    ValueError
        Where an option has no value, or comes twice.
    """
    name, _, rest = spec.partition(":")
    options: dict[str, Any] = {}
    parts = rest.split(",") if rest else []
    if parts and "=" not in parts[0] and parts[0].strip() in names():
        options["policy"] = parts.pop(0).strip()
    for part in parts:
        key, found, value = (piece.strip() for piece in part.partition("="))
        if not (key and found and value):
            msg = f"policy {spec!r}: expected options as `option=value`, got {part!r}; as in uds:alpha=0.5,dim=256"
            raise ValueError(msg)
        if key in options:
            msg = f"policy {spec!r}: the option {key!r} comes twice"
            raise ValueError(msg)
        options[key] = parse_value(value)
    return name.strip(), options


def make_policy(spec: str, /, **shared: Any) -> Policy:
    """Return the policy that `spec` describes, as in ``make_policy("uds:keep=0.25,alpha=auto")``.

    Parameters
    ----------
    spec
        ``name:option=value,option=value``: a name that `get` knows, and its options. Of a policy with another inside,
        ``name:inner,option=value``; options that the outer one does not have are those of the inner one.
    **shared
        Further options, for the policies that take them; those of `spec` come first. `keep` is left out where `spec`
        has a `count` or `tokens`.

    Raises
    ------
    ValueError, TypeError, ImportError
        Where there is no such policy or option, or a value does not fit.
    """
    name, options = parse_policy(spec)
    make = get(name)
    known = inspect.signature(make).parameters
    unknown = [option for option in options if option not in known]
    inside = options.get("policy", known["policy"].default) if "policy" in known else None
    if isinstance(inside, str) and inside:
        inner = {option: options.pop(option) for option in unknown}
        beside = {key: value for key, value in shared.items() if key not in known and key not in inner}
        options["policy"] = _inner(spec, inside, inner, beside)
    elif unknown:
        msg = f"policy {spec!r}: {name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}"
        raise ValueError(msg)
    if {"count", "tokens", "processed"} & options.keys():
        shared.pop("keep", None)
    taken = {key: value for key, value in shared.items() if key in known}
    return make(**{**taken, **options})


def _inner(spec: str, name: str, options: dict[str, Any], shared: dict[str, Any]) -> Policy:
    """Return the policy `name` with `options`, inside of the one that `spec` describes; `shared`: where it has them."""
    make = get(name)
    known = inspect.signature(make).parameters
    if unknown := [option for option in options if option not in known]:
        msg = f"policy {spec!r}: neither it nor {name} has an option {unknown[0]!r}; {name} has {', '.join(known)}"
        raise ValueError(msg)
    return make(**{key: value for key, value in shared.items() if key in known}, **options)


def parse_value(text: str, /) -> Any:
    """Return a number, ``true``, ``false``, ``null`` (Python's None) or JSON; else the text itself."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except json.JSONDecodeError:
        return text
