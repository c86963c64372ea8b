"""Checks of options: an error names the option, the allowed values and the given one."""

import reprlib
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

_SEEDS = 2**63  # what a saved state's int64 holds; two words of 32 bits, see `_random.generator`


def check(
    name: str,
    value: object,
    expected: str,
    /,
    *,
    kind: type | tuple[type, ...],
    fits: Callable[[Any], bool],
    remedy: str = "",
) -> None:
    """Raise a TypeError where `value` is not of `kind`, a ValueError where it does not fit.

    True and False are refused: Python counts them as numbers, but as the value of a number they are a mistake.
    """
    known = isinstance(value, kind) and not isinstance(value, bool)
    if known and fits(value):
        return
    msg = f"`{name}` must be {expected}, got {reprlib.repr(value)}"
    if not known:
        msg += f" ({type(value).__name__})"
        raise TypeError(msg + remedy)
    raise ValueError(msg + remedy)


def number(name: str, value: object, expected: str, /, *, fits: Callable[[Any], bool], remedy: str = "") -> None:
    """Raise unless `value` is a real number, of Python or NumPy, that `fits`; NaN fits no comparison."""
    check(name, value, expected, kind=Real, fits=fits, remedy=remedy)


def whole(name: str, value: object, /, *, least: int = 1, remedy: str = "") -> None:
    """Raise unless `value` is a whole number of at least `least`: 2, not 2.0."""
    expected = f"a whole number of at least {least}"
    check(name, value, expected, kind=Real, fits=lambda n: _is_whole(n) and n >= least, remedy=remedy)


def seed(value: object, /) -> None:
    """Raise unless `value` is a whole number that `_random.generator` takes as a seed."""
    expected = "a whole number of at least 0 and below 2**63"
    check("seed", value, expected, kind=Real, fits=lambda n: _is_whole(n) and 0 <= n < _SEEDS)


def one_of(name: str, value: object, known: tuple[str, ...], /) -> None:
    """Raise unless `value` is one of the words `known`."""
    check(name, value, f"one of {', '.join(map(repr, known))}", kind=str, fits=lambda given: given in known)


def _is_whole(number: Any) -> bool:
    return isinstance(number, (int, np.integer))
