"""Fuzzed calls: the same call on several array libraries, and the comparison of what comes out."""

import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from conftest import BACKENDS, Backend

import uds_core as uds

OURS = Path(uds.__file__).parent
LIBRARIES: dict[str, Backend] = {
    backend.name: backend for backend in (parameter.values[0] for parameter in BACKENDS) if not backend.missing
}
SIZES = (0, 1, 1, 2, 3, 5)


class Outcome(NamedTuple):
    """Named arrays on the host, or the error that was raised instead."""

    arrays: dict[str, np.ndarray]
    error: str = ""


def outcome(call: Callable[[Backend], Any], library: Backend) -> Outcome:
    """Return what the call gives; an error that is not raised by a `raise` of the library itself goes through."""
    try:
        return Outcome(dict(_arrays(call(library), "", library)))
    except (ValueError, TypeError) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        if OURS not in Path(where.filename).parents or not (where.line or "").startswith("raise"):
            raise
        return Outcome({}, f"{type(error).__name__}: {_plain(str(error))}")


def assert_alike(got: Outcome, expected: Outcome, *, rtol: float, atol: float) -> None:
    """Compare two outcomes: the same error, or the same names, shapes and numbers."""
    assert got.error == expected.error
    assert set(got.arrays) == set(expected.arrays)
    for name, array in got.arrays.items():
        other = expected.arrays[name]
        assert array.shape == other.shape, name
        np.testing.assert_allclose(array, other, rtol=rtol, atol=atol, equal_nan=True, err_msg=name)


def size(rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> int:
    return int(rng.choice(sizes))


def numbers(rng: np.random.Generator, *shape: int, bad: float = 0.2) -> np.ndarray:
    """Return random numbers; sometimes all 0, all of one size, copies, or with some that are not finite."""
    kind = rng.integers(6)
    x = rng.normal(size=shape) * [1.0, 1.0, 1e-3, 1e3, 0.0, 1.0][kind]
    if kind == 5 and shape and shape[0] > 1:
        x[1] = x[0]
    if x.size and rng.random() < bad:
        x[tuple(rng.integers(n) for n in shape)] = rng.choice([np.nan, np.inf, -np.inf])
    return x


def flags(rng: np.random.Generator, *shape: int) -> np.ndarray | None:
    """Return a mask: none, all, nothing, or random."""
    kind = rng.integers(5)
    return None if kind == 0 else rng.random(size=shape) < [0, 1.0, 0.0, 0.5, 0.8][kind]


def targets(rng: np.random.Generator, *shape: int, vocab: int) -> np.ndarray:
    """Return labels: -100 here and there, sometimes everywhere, rarely beyond the vocabulary."""
    labels = rng.integers(0, max(vocab, 1), size=shape)
    if rng.random() < 0.1:
        labels[...] = vocab + 3
    return np.where(rng.random(size=shape) < rng.choice([0.0, 0.3, 1.0]), -100, labels)


def _arrays(value: Any, name: str, library: Backend) -> Any:
    if value is None:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _arrays(item, f"{name}.{key}", library)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _arrays(item, f"{name}.{i}", library)
    elif isinstance(value, (int, float, np.ndarray, np.generic)):
        yield name, np.asarray(value)
    else:
        yield name, library.numpy(value)


def _plain(message: str) -> str:
    """Return a message without what each library calls its types, shapes and devices."""
    message = re.sub(r"\btorch\.(?=[a-z])|array_api_strict\.|torch\.Size", "", message)
    return re.sub(r"int32|int64", "int", re.sub(r"float32|float64", "float", message))
