"""Backends: every array library that is installed, array-api-strict first and on its odd devices."""

import gc
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# one worker a core: more threads would only wait for each other (a test of 1 s took 50)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nothing is fetched or reported: libraries read this when they are imported, and processes of tests inherit it
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# JAX compiles anew for each shape, and hardly runs what it compiled
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import array_api_strict
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "uds",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "20")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("uds")

MODELS = Path(__file__).parents[2] / "shared" / "models"
DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Backend:
    """An array library and a device of it. Inputs and expectations are made in NumPy; only the tested code sees it."""

    name: str
    xp: Any
    device: Any = None
    floats: tuple[str, ...] = ("float32", "float64")
    missing: str = ""  # what it lacks on this machine, so that its tests are skipped

    def array(self, values: Any, dtype: str | None = None) -> Any:
        values = np.asarray(values)
        if dtype is None and values.dtype == np.float64 and "float64" not in self.floats:
            dtype = "float32"
        if dtype is None and values.dtype == np.int64 and self.name == "jax":
            dtype = "int32"
        values = values if dtype is None else values.astype(dtype)
        if self.name == "cupy":  # its arrays lie on the current GPU, and a device is a number there
            return self.xp.asarray(values)
        return self.xp.asarray(values) if self.device is None else self.xp.asarray(values, device=self.device)

    def numpy(self, x: Any) -> np.ndarray:
        if self.name.startswith("strict"):
            x = x._array  # not `to_device`, which asks for NumPy 2
        if self.name == "torch:cuda":
            x = x.cpu()
        if self.name == "cupy":  # NumPy may not read it: no silent transfer
            x = x.get()
        return np.asarray(x)


def _backends() -> list[Any]:
    found = [
        Backend("strict", array_api_strict),
        Backend("strict:device1", array_api_strict, array_api_strict.Device("device1")),
        Backend("strict:no_float64", array_api_strict, array_api_strict.Device("no_float64"), ("float32",)),
        Backend("numpy", np),
    ]
    if importlib.util.find_spec("torch"):
        import array_api_compat.torch

        found.append(Backend("torch", array_api_compat.torch))
        torch = importlib.import_module("torch")
        found.append(Backend("torch:cuda", array_api_compat.torch, "cuda", missing=_no_gpu(torch)))
    found.append(_cupy())
    if importlib.util.find_spec("jax"):
        import jax.numpy

        found.append(Backend("jax", jax.numpy, floats=("float32",)))
    return [_parameter(backend) for backend in found]


def _cupy() -> Backend:
    if not importlib.util.find_spec("cupy"):
        return Backend("cupy", None, "cuda", missing="needs CuPy, which is not installed")
    import array_api_compat.cupy

    return Backend("cupy", array_api_compat.cupy, "cuda", missing=_no_gpu(importlib.import_module("cupy")))


def _no_gpu(library: Any) -> str:
    """Why tests on its GPU are left out; empty where there is one. Of torch and CuPy."""
    return "" if library.cuda.is_available() else "needs a CUDA device, and there is none"


def _parameter(backend: Backend) -> Any:
    marks = [pytest.mark.skip(reason=backend.missing)] if backend.missing else []
    return pytest.param(backend, id=backend.name, marks=marks)


BACKENDS = _backends()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow on JAX, which compiles anew for each shape, laws with many examples and what one policy promises."""
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {}).get("backend")
        if not isinstance(given, Backend) or given.name != "jax":
            continue
        of_one_policy = item.path.parent.name == "policies" and item.path.name != "test_laws.py"
        if of_one_policy or getattr(item.obj, "is_hypothesis_test", False):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _what_is_imported_is_not_searched_for_garbage() -> None:
    """Trainers collect garbage with each run, which searched all frameworks and collected tests: half of their time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param


def shared(folder: Path, name: str) -> Path:
    """A folder of models or data that is not part of the project, or a skip."""
    if not (folder / name).exists():
        pytest.skip(f"needs {name}, which is not part of the project")
    return folder / name


@pytest.fixture
def stories() -> Path:
    return shared(MODELS, "stories260k")
