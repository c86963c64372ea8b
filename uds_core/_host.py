"""Transfers of several arrays to the host at once."""

from collections.abc import Mapping
from typing import Any

import array_api_compat
import numpy as np

from ._array import Array, array_namespace, to_numpy, widen

Host = np.ndarray[Any, Any]


def to_host(arrays: Mapping[str, Array], /) -> dict[str, Host]:
    """Return arrays on the host, half floats widened: the host waits for PyTorch's device once, not for each array."""
    readable = {name: _readable(x) for name, x in arrays.items()}
    places = {name: x.device for name, x in readable.items() if array_api_compat.is_torch_array(x)}
    found = {name: to_numpy(x) for name, x in readable.items() if name not in places or places[name].type == "cpu"}
    for place in {place for place in places.values() if place.type != "cpu"}:
        found.update(_together({name: readable[name] for name, here in places.items() if here == place}))
    return {name: found[name] for name in arrays}


def _together(arrays: dict[str, Any]) -> dict[str, Host]:
    """Return arrays of one device of PyTorch, joined as bytes for the way."""
    first = next(iter(arrays.values()))
    if len(arrays) == 1:
        return {name: to_numpy(x) for name, x in arrays.items()}
    xp = array_namespace(first)
    parts = [xp.reshape(x.detach().contiguous(), (-1,)).view(xp.uint8) for x in arrays.values()]
    joined, start = to_numpy(xp.concat(parts)), 0
    found: dict[str, Host] = {}
    for (name, x), part in zip(arrays.items(), parts, strict=True):
        dtype = str(x.dtype).removeprefix("torch.")
        found[name] = joined[start : start + part.shape[0]].copy().view(dtype).reshape(tuple(x.shape))
        start += part.shape[0]
    return found


def _readable(x: Array) -> Array:
    # NumPy has no bfloat16
    return widen(x) if array_namespace(x).isdtype(x.dtype, "real floating") else x
