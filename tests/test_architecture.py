"""Who may import whom, and what every room keeps: the picture in docs, as a test."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uds_core

CORE = Path(uds_core.__file__).parent
ADAPTERS = CORE.parent / "adapters" / "uds_adapters"
COMPAT = {"array_api_compat", "array_api_extra", "numpy"}

OURS = {  # file -> rooms of ours that it may import
    "_array": set(),
    "rows": {"_array"},
    "head": {"_array", "rows"},
    "logits": {"_array", "rows", "head"},
    "memory": {"_array", "draws", "options"},
    "tradeoff": {"_array", "options"},
    "gram": {"_array", "rows", "head", "logits"},
    "estimators": {"_array", "draws", "gram"},
    "spectrum": {"_array", "rows", "logits", "gram", "estimators"},
    "gradients": {"_array", "rows", "head", "logits", "draws"},
    "ghost": {"_array"},
    "losses": {"_array", "rows", "logits"},
    "draws": {"options"},
    "options": set(),
    "shifts": {"_array", "rows"},
    "sketch": {"_array", "rows", "head", "logits", "draws", "shifts"},
    "distortion": {"_array", "head", "logits"},
    "choice": {"_array", "draws", "memory", "options"},
    "ledger": set(),
    "entry_points": set(),
    "policy": {"_array", "rows", "logits", "entry_points"},
    "state": {"_array"},
}


def imports(file):
    """Roots of outside imports, and rooms of ours (relative imports), of a file."""
    outside, ours = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            outside |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            ours |= {node.module.split(".")[0]} if node.module else {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            outside.add((node.module or "").split(".")[0])
    return outside - set(sys.stdlib_module_names), ours


@pytest.mark.parametrize("room", sorted(OURS))
def test_core_rooms_import_what_the_table_says(room):
    outside, ours = imports(CORE / f"{room}.py")
    assert ours <= OURS[room]
    assert outside <= COMPAT


def test_every_core_file_is_in_the_table():
    assert {file.stem for file in CORE.glob("*.py")} - {"__init__"} == set(OURS)


@pytest.mark.parametrize("file", sorted((CORE / "policies").glob("*.py")), ids=lambda file: file.stem)
def test_policies_import_the_core_alone(file):
    outside, _ = imports(file)
    assert outside <= {"numpy"}


ALLOWED = {  # what an adapter may import from outside, beside torch and our core
    "batches": set(),
    "padded": set(),
    "documents": set(),
    "entries": set(),
    "forward": set(),
    "models": set(),
    "heads": set(),
    "probe": {"numpy"},
    "validation": set(),
    "ghost": set(),
    "torch": set(),
    "ranks": set(),
    "metrics": set(),
    "deal": set(),
    "looking": set(),
    "sharded": set(),
    "history": {"numpy"},
    "schedule": set(),
    "reference_losses": set(),
    "checkpoints": {"safetensors"},
    "audit": {"pyarrow"},
    "transformers": {"transformers", "safetensors"},
    "trl": {"trl"},
    "lightning": {"lightning"},
}


@pytest.mark.parametrize("file", sorted(ADAPTERS.glob("*.py")), ids=lambda file: file.stem)
def test_adapters_import_their_own_framework_and_public_names(file):
    outside, _ = imports(file)
    assert outside <= {"torch", "uds_core"} | ALLOWED.get(file.stem, set())
    public = {
        node.attr
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "uds"
    }
    assert public <= set(uds_core.__all__)


def test_adapters_do_no_arithmetic_on_scores():
    """No formula lives outside the core: adapters never touch `scores`."""
    for file in ADAPTERS.glob("*.py"):
        names = {n.attr for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Attribute)}
        assert "scores" not in names, file


def loaded_after(statement):
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


FRAMEWORKS = {"torch", "jax", "cupy", "transformers", "trl", "peft", "lightning", "accelerate", "datasets", "pyarrow"}


def test_importing_the_core_imports_no_framework():
    assert not loaded_after("import uds_core") & FRAMEWORKS
    assert "torch" in loaded_after("import torch")  # the test itself can see one


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import uds_adapters", set()),
        ("import uds_adapters.schedule", set()),
        ("import uds_adapters.audit", set()),
        ("import uds_adapters.torch", {"torch"}),
        ("import uds_adapters.transformers", {"torch"}),
        ("import uds_adapters.trl", {"torch"}),
    ],
)
def test_adapters_import_no_framework_but_their_own(statement, allowed):
    assert loaded_after(statement) & FRAMEWORKS <= allowed


CREATORS = {f"xp.{name}" for name in ("zeros", "ones", "empty", "full", "arange", "linspace", "eye", "asarray")}


def test_every_array_is_created_with_dtype_and_device():
    """A default device or dtype is an error waiting for a GPU."""
    for file in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in CREATORS:
                named = {keyword.arg for keyword in node.keywords}
                assert "device" in named, f"{file.name}:{node.lineno}"
                assert "dtype" in named or ast.unparse(node.func) == "xp.asarray", f"{file.name}:{node.lineno}"


def test_public_names_are_there_and_described():
    for name in uds_core.__all__:
        assert hasattr(uds_core, name)
        assert getattr(uds_core, name).__doc__ or name in ("Array", "Features")


def test_no_room_grows_beyond_one_reading():
    for file in [*CORE.rglob("*.py"), *ADAPTERS.rglob("*.py")]:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 350, file
