"""Who may import whom, and what every room keeps. The tables of docs/pages/architecture.md are the rule."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import rooms

import uds_core

CORE = Path(uds_core.__file__).parent
ADAPTERS = CORE.parent / "adapters" / "uds_adapters"
COMPAT = {"array_api_compat", "array_api_extra", "numpy"}

DOCS = CORE.parent / "docs"
PAGE = (DOCS / "pages" / "architecture.md").read_text(encoding="utf-8")
ROOMS = rooms.tables(PAGE)


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


@pytest.mark.parametrize("package", [CORE, ADAPTERS], ids=lambda package: package.name)
def test_every_file_is_in_the_table(package):
    assert {file.stem for file in package.glob("*.py")} - {"__init__"} == set(ROOMS[package.name])


@pytest.mark.parametrize("room", sorted(ROOMS["uds_core"]))
def test_core_rooms_import_what_the_table_says(room):
    outside, ours = imports(CORE / f"{room}.py")
    assert ours == ROOMS["uds_core"][room].ours
    assert outside <= COMPAT


@pytest.mark.parametrize("room", sorted(ROOMS["uds_adapters"]))
def test_adapters_import_what_the_table_says(room):
    outside, ours = imports(ADAPTERS / f"{room}.py")
    assert ours == ROOMS["uds_adapters"][room].ours
    assert outside - {"uds_core"} == ROOMS["uds_adapters"][room].outside


def test_the_pictures_are_made_of_the_tables():
    for file, text in rooms.pictures(PAGE).items():
        drawn = (DOCS / "figures" / file).read_text(encoding="utf-8")
        assert drawn == text, "the tables were changed: run `python docs/drawings/rooms.py`"


@pytest.mark.parametrize("file", sorted((CORE / "policies").glob("*.py")), ids=lambda file: file.stem)
def test_policies_import_the_core_alone(file):
    outside, _ = imports(file)
    assert outside <= {"numpy"}


@pytest.mark.parametrize("file", sorted(ADAPTERS.glob("*.py")), ids=lambda file: file.stem)
def test_adapters_use_public_names_of_the_core(file):
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
