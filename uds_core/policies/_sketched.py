"""What remembered sketches were made with, as one number: others cannot be compared with them."""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from .._array import array_namespace, to_numpy, widen
from ..memory import Memory

__all__ = ["Remembered", "check_recipe", "fingerprint"]


class Remembered(NamedTuple):
    """The state of a policy that remembers the sketches of chosen samples, and nothing else."""

    memory: Memory
    recipe: int

    def check(self, template: "Remembered", /) -> None:
        """Raise where the restored sketches cannot be compared with those that are still to come."""
        check_recipe(self.recipe, template.recipe)


def fingerprint(*options: Any) -> int:
    """A number of 32 bits of what sketches depend on: words, numbers, arrays, tuples of these or None."""
    return zlib.crc32(repr(tuple(map(_plain, options))).encode())


def check_recipe(saved: int, now: int) -> None:
    """Raise where two fingerprints differ."""
    if saved != now:
        msg = (
            "the saved sketches were made with other options: use the `sketch`, `dim`, `seed`, `rows`, `length` "
            "and `centre` of the policy that was saved (of Reference: `time`, `rank`, `seed`, `signs` and `indices`), "
            "or start without its state"
        )
        raise ValueError(msg)


def _plain(option: Any) -> Any:
    if option is None or isinstance(option, str):
        return option
    if isinstance(option, (tuple, list)):
        return tuple(_plain(item) for item in cast("Sequence[Any]", option))
    if getattr(option, "shape", ()):
        floating = array_namespace(option).isdtype(option.dtype, "real floating")
        return to_numpy(widen(option) if floating else option).tobytes()  # NumPy has no bfloat16
    return int(option)
