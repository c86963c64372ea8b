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


# What of the core runs on JAX among the fast tests, where compiling takes more than half of the core's time: of each of
# these files the first case of what it is about. All other files, which compile little, run whole.
FIRST_ON_JAX = {
    "test_distortion": "test_distortion_is_that_of_all_pairs",
    "test_factors": "test_sampled_norms_and_sketches_are_those_of_the_drawn_entries",
    "test_glance": "test_a_prompt_of_its_own_and_targets_of_another_length",
    "test_gumbel": "test_draws_are_the_same_on_every_library",
    "test_head_gradients": "test_the_gradient_in_the_hidden_states",
    "test_layer_gradients": "test_products_are_those_of_gradients_that_are_made",
    "test_learner": "test_a_saved_state_goes_on_bit_for_bit",
    "test_logits": "test_blocks_put_together_are_the_logits",
    "test_losses": "test_the_mask_and_missing_labels_leave_rows_out",
    "test_memory": "test_two_tight_clusters_far_apart_keep_their_distances",
    "test_ngrams": "test_jaccard_is_unbiased",
    "test_sketch": "test_head_equals_dense",
    "test_spectrum": "test_head_equals_dense",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow on JAX, which compiles anew for each shape: see `_is_slow_on_jax`."""
    seen: set[str] = set()
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {}).get("backend")
        if isinstance(given, Backend) and given.name == "jax" and _is_slow_on_jax(item, seen):
            item.add_marker(pytest.mark.slow)


def _is_slow_on_jax(item: Any, seen: set[str]) -> bool:
    """Whether it is a law with many examples, what one policy promises, or a repetition in a file of the core."""
    if getattr(item.obj, "is_hypothesis_test", False):
        return True
    if item.path.parent.name == "policies":
        return item.path.name != "test_laws.py"
    first = FIRST_ON_JAX.get(item.path.stem) if item.path.parent.name == "core" else None
    repeated = first is not None and (item.originalname != first or first in seen)
    seen.add(item.originalname)
    return repeated


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
