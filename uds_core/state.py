"""Conversion of policy states to and from flat dicts of NumPy arrays, as safetensors stores."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from ._array import Array, constant, to_numpy

_State = TypeVar("_State")


def flatten(state: Any, /) -> dict[str, np.ndarray]:
    """Return `state` as named arrays: nested names are joined by dots, integers become int64 of shape ().

    A state is a (nested) NamedTuple of arrays and whole numbers; None, before the first choice or for nothing to
    remember, is an empty dict.
    """
    return {} if state is None else dict(_leaves(state, ""))


def restore(template: _State, arrays: Mapping[str, Any], /) -> _State:
    """Return the state that `flatten` wrote as `arrays`, with the structure, library, dtypes and devices of `template`.

    Parameters
    ----------
    template
        A state of the same policy, as `init` gives it.
    arrays
        Name -> array (NumPy, or anything NumPy reads), as `flatten` gave them.

    Raises
    ------
    ValueError
        Where a name is missing or unknown, or a shape, kind or number does not fit: the policy's options are not those
        that were saved, or the file is damaged.

    Notes
    -----
    A part of a state may have a method `check(template)` that raises where what was restored cannot be. An array that
    has no rows in the template grows: in `arrays` it may have any number of them.
    """
    expected = dict(_leaves(template, ""))
    if set(expected) != set(arrays):
        missing, unknown = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
        msg = (
            f"the saved state does not fit this policy: missing {missing}, unknown {unknown}: "
            "use the policy and the options it was saved with"
        )
        raise ValueError(msg)
    for name, array in expected.items():
        if not _fits(np.shape(arrays[name]), array.shape):
            msg = (
                f"the saved state's {name!r} has shape {tuple(np.shape(arrays[name]))}, "
                f"this policy expects {array.shape}: use the options (memory, dim, ...) it was saved with"
            )
            raise ValueError(msg)
        if np.asarray(arrays[name]).dtype.kind != array.dtype.kind:
            msg = f"the saved state's {name!r} is {np.asarray(arrays[name]).dtype}, not {array.dtype}: it is damaged"
            raise ValueError(msg)
    return _rebuild(template, arrays, "")


def _fits(saved: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if expected and expected[0] == 0:  # nothing entered yet
        return len(saved) == len(expected) and saved[1:] == expected[1:]
    return saved == expected


def _leaves(state: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in zip(state._fields, state, strict=True):
        if value is None:  # a policy inside of another, which remembers nothing
            continue
        if hasattr(value, "_fields"):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            yield f"{prefix}{name}", np.asarray(value, dtype=np.int64)
        else:
            yield f"{prefix}{name}", to_numpy(value)


def _rebuild(template: Any, arrays: Mapping[str, Any], prefix: str) -> Any:
    def leaf(name: str, value: Array) -> Any:
        key = prefix + name
        if value is None:
            return None
        if hasattr(value, "_fields"):
            return _rebuild(value, arrays, f"{key}.")
        saved = np.asarray(arrays[key])
        return int(saved) if isinstance(value, int) else constant(saved, like=value, dtype=value.dtype)

    rebuilt = type(template)(*(leaf(name, value) for name, value in zip(template._fields, template, strict=True)))
    if hasattr(rebuilt, "check"):
        rebuilt.check(template)
    return rebuilt
