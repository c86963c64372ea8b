"""Rules for every file, above all who may import whom: the tables of layers in docs/pages/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import file_imports
import pytest
import rooms

import uds_core

CORE = Path(uds_core.__file__).parent
ADAPTERS = CORE.parent / "adapters" / "uds_adapters"

DOCS = CORE.parent / "docs"
PAGE = (DOCS / "pages" / "architecture.md").read_text(encoding="utf-8")
LAYERS = {part: rooms.layers(PAGE, part) for part in rooms.PARTS}
IMPORTS = {package: file_imports.imports(package) for package in file_imports.PACKAGES}
WRITTEN = {part: rooms.written(part) for part in rooms.PARTS}
NAMES = {part: rooms.files(part) for part in rooms.PARTS}
FILES = [pytest.param(part, short, id=f"{part}/{short}") for part in rooms.PARTS for short in NAMES[part]]
ALL = [pytest.param(package, name, id=f"{package}/{name}") for package in IMPORTS for name in IMPORTS[package]]
POLICIES = sorted(name for name in IMPORTS["uds_core"] if name.startswith("policies/") and name != "policies/__init__")
COMMANDS = ("compare", "demo", "tune", "profile", "score", "train", "report")
COMMAND_FILES = sorted(
    name for name in IMPORTS["uds_adapters"] if name.split("/")[:2] in [["lab", c] for c in COMMANDS]
)
SHARED_WITH_COMMANDS = {"lab/report"}  # a comparison ends with its report, so all that compare may write one

every_file = pytest.mark.parametrize(("part", "short"), FILES)
every_module = pytest.mark.parametrize(("package", "name"), ALL)


def imported(part, short):
    package, _ = rooms.PARTS[part]
    return IMPORTS[package][NAMES[part][short]]


@every_file
def test_every_file_is_in_one_layer(part, short):
    layer = rooms.layer_of(short, LAYERS[part])
    assert layer, f"{part}/{short}.py is in no layer of docs/pages/architecture.md"


@every_file
def test_a_file_imports_only_what_its_layer_may(part, short):
    layers, files = LAYERS[part], NAMES[part]
    may = rooms.allowed(rooms.layer_of(short, layers), layers)
    inside = {name for name in files if files[name] in imported(part, short).ours}
    above = {name: rooms.layer_of(name, layers) for name in inside if rooms.layer_of(name, layers) not in may}
    assert not above, f"{short} may import the layers {sorted(may)}, and imports {above}"


@every_file
def test_a_file_imports_from_outside_only_what_its_layer_may(part, short):
    layers = LAYERS[part]
    may = layers[rooms.layer_of(short, layers)].outside
    assert imported(part, short).outside - {"uds_core"} <= may


@every_file
def test_the_table_of_files_agrees_with_the_code(part, short):
    lines = [line for line in WRITTEN[part].splitlines() if line.startswith(rooms.cell(short))]
    assert len(lines) == 1
    assert lines[0] in rooms.table(PAGE, part).splitlines(), "run `python docs/drawings/rooms.py --update`"


@pytest.mark.parametrize("part", rooms.PARTS)
def test_the_table_of_files_has_no_other_files(part):
    assert rooms.table(PAGE, part) == WRITTEN[part], "run `python docs/drawings/rooms.py --update`"


@pytest.mark.parametrize("part", rooms.PARTS)
def test_every_layer_and_member_exists(part):
    layers, files = LAYERS[part], NAMES[part]
    assert {below for row in layers.values() for below in row.below} <= set(layers)
    assert {rooms.layer_of(short, layers) for short in files} == set(layers)
    named = {member for row in layers.values() for member in row.members if member.isidentifier()}
    assert named <= set(files)


@pytest.mark.parametrize("part", rooms.PARTS)
def test_layers_are_in_no_circle(part):
    for layer, row in LAYERS[part].items():
        for below in row.below:
            assert layer not in rooms.allowed(below, LAYERS[part])


@every_module
def test_no_file_imports_itself_by_way_of_others(package, name):
    circle = file_imports.circle(IMPORTS[package], name)
    assert not circle, " imports ".join(circle)


def test_adapters_outside_of_lab_do_not_import_lab():
    for name, (ours, _) in IMPORTS["uds_adapters"].items():
        assert name.startswith("lab/") or not any(other.startswith("lab/") for other in ours), name


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_leans_on_no_sibling(name):
    siblings = {other for other in IMPORTS["uds_core"][name].ours if other.startswith("policies/")}
    assert all(other.startswith("policies/_") for other in siblings), siblings


@pytest.mark.parametrize("name", COMMAND_FILES)
def test_a_command_does_not_import_another(name):
    own = "/".join(name.split("/")[:2])
    folders = {"/".join(other.split("/")[:2]) for other in IMPORTS["uds_adapters"][name].ours}
    others = {f"lab/{command}" for command in COMMANDS} - {own} - SHARED_WITH_COMMANDS
    assert not folders & others


def test_only_the_command_line_imports_commands():
    for name, (ours, _) in IMPORTS["uds_adapters"].items():
        assert name == "lab/cli" or not any(other.endswith("/command") for other in ours), name


@pytest.mark.parametrize("part", rooms.TITLES)
def test_the_pictures_are_drawn_from_the_tables(part):
    file, text = rooms.picture(PAGE, part)
    drawn = (DOCS / "figures" / file).read_text(encoding="utf-8")
    assert drawn == text, "run `python docs/drawings/rooms.py`"


@pytest.mark.parametrize("name", sorted(IMPORTS["uds_core"]))
def test_the_core_imports_array_libraries_alone(name):
    assert IMPORTS["uds_core"][name].outside <= {"array_api_compat", "array_api_extra", "numpy"}


@pytest.mark.parametrize("file", sorted((CORE / "policies").glob("*.py")), ids=lambda file: file.stem)
def test_policies_import_the_core_alone(file):
    assert IMPORTS["uds_core"][f"policies/{file.stem}"].outside <= {"numpy"}


@pytest.mark.parametrize("name", sorted(IMPORTS["uds_adapters"]))
def test_adapters_use_public_names_of_the_core(name):
    tree = ast.parse((ADAPTERS / f"{name}.py").read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "uds"
    }
    members = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    from_core = [node for node in members if (node.module or "").split(".")[0] == "uds_core"]
    assert all(node.module == "uds_core" for node in from_core)
    used |= {alias.name for node in from_core for alias in node.names}
    assert used <= {*uds_core.__all__, "__version__"}


@pytest.mark.parametrize("name", sorted(IMPORTS["uds_adapters"]))
def test_adapters_do_no_arithmetic_on_scores(name):
    """No formula lives outside the core: adapters never touch `scores`."""
    tree = ast.parse((ADAPTERS / f"{name}.py").read_text(encoding="utf-8"))
    assert "scores" not in {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


# The reader of imports, on code of its own


def read(tmp_path, monkeypatch, files):
    for name, text in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setitem(file_imports.PACKAGES, "house", tmp_path)
    return file_imports.imports("house")


@pytest.mark.parametrize(
    ("statement", "ours"),
    [
        ("from . import b", {"lab/b"}),
        ("from .b import name", {"lab/b"}),
        ("from .. import top", {"top"}),
        ("from ..top import name", {"top"}),
        ("from ..wing import name", {"wing/__init__"}),
        ("from .. import wing", {"wing/__init__"}),
        ("from ..wing import c", {"wing/c"}),
        ("from house.wing.c import name", {"wing/c"}),
        ("import house.wing.c", {"wing/c"}),
        ("def f():\n    from .b import name", {"lab/b"}),
        ("import json\nimport os.path", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(tmp_path, monkeypatch, statement, ours):
    others = dict.fromkeys(("__init__", "top", "lab/__init__", "lab/b", "wing/__init__", "wing/c"), "")
    assert read(tmp_path, monkeypatch, {"lab/a": statement, **others})["lab/a"] == (ours, set())


def test_a_circle_is_found(tmp_path, monkeypatch):
    graph = read(tmp_path, monkeypatch, {"a": "from . import b", "b": "from .c import x", "c": "import torch, house.a"})
    assert file_imports.circle(graph, "a") == ["a", "b", "c", "a"]
    assert graph["c"].outside == {"torch"}


def test_a_straight_line_is_no_circle(tmp_path, monkeypatch):
    graph = read(tmp_path, monkeypatch, {"a": "from . import b", "b": "from . import c", "c": ""})
    assert not any(file_imports.circle(graph, name) for name in graph)


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


@every_module
def test_no_file_is_longer_than_one_reading(package, name):
    text = file_imports.files(package)[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
