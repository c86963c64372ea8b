"""The documentation: every public name has a place, every link leads somewhere, every page is in the contents."""

import ast
import re

import pytest
import repository
from repository import PAGES, ROOT

import uds_core as uds

NAV = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
REFERENCE = {file.stem: file.read_text(encoding="utf-8") for file in (PAGES / "reference").glob("*.md")}
SHOWN = set(re.findall(r"^::: (\S+)$", "\n".join(REFERENCE.values()), flags=re.MULTILINE))
ALL = sorted(PAGES.rglob("*.md"))


def short(page):
    return page.relative_to(PAGES).as_posix()


def module_of(name):
    """The file of a dotted name, and what is left of the name after it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT / "adapters" / "/".join(parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file, ".".join(parts[end:])
    return None, name


def public(module):
    """`__all__` of a file, read and not run: a framework may be missing."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def places(text):
    """Anchors of a page: headings, and names that the reference shows, with those in a module that is shown whole."""
    shown = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    modules = {name: module_of(name) for name in shown}
    members = {
        f"{name}.{member}" for name, (file, rest) in modules.items() if file and not rest for member in public(file)
    }
    return repository.anchors(text) | {*shown} | members


def test_every_public_name_of_the_core_is_in_the_reference_once():
    listed = re.findall(r"^::: uds_core\.(\S+)$", "\n".join(REFERENCE.values()), flags=re.MULTILINE)
    assert sorted(listed) == sorted(uds.__all__)


ADAPTERS = ROOT / "adapters" / "uds_adapters"
MODULES = [file for file in sorted(ADAPTERS.rglob("[!_]*.py")) if "lab" not in file.parts]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(ADAPTERS).with_suffix("").as_posix())
def test_every_public_name_of_an_adapter_is_in_the_reference(module):
    whole = ".".join(module.relative_to(ADAPTERS.parent).with_suffix("").parts)
    assert public(module), "a module lists its public names in `__all__`"
    if whole not in SHOWN:
        assert {f"{whole}.{name}" for name in public(module)} <= SHOWN


def test_the_reference_shows_nothing_that_is_gone():
    for name in SHOWN:
        if name.startswith("uds_adapters."):
            file, member = module_of(name)
            assert file, name
            assert file != ADAPTERS / "__init__.py", name
            assert not member or member in public(file), name


def test_every_page_is_in_the_contents_and_no_other():
    assert sorted(re.findall(r"[\w/-]+\.md", NAV)) == [short(page) for page in ALL]


@pytest.mark.parametrize("page", ALL, ids=short)
def test_links_lead_to_files_and_to_headings_in_them(page):
    text = repository.text(page)
    found = [match for part in re.split(repository.FENCE, text) for match in repository.LINK.finditer(part or "")]
    for match in found:
        file = ROOT / match[1].lstrip("/")
        assert file.exists(), match[0]
        if match[2] and file.suffix == ".md":
            assert match[2].lstrip("#") in places(repository.text(file)), match[0]
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in repository.anchors(text)


def test_a_link_works_in_the_repository_and_in_the_site():
    page = PAGES / "concepts" / "sketches.md"
    (picture,) = repository.LINK.findall("![x](../../figures/sketches.svg)")
    assert (page.parent / picture[0]).is_file()
    assert repository.place(page.parent / picture[0]) == "figures/sketches.svg"
    assert repository.place(ROOT / "benchmarks" / "README.md") == "benchmarks.md"
    assert repository.place(PAGES / "faq.md") == "faq.md"
    assert repository.place(ROOT / "LICENSE") == "files/LICENSE"


def test_a_section_of_another_file_is_shown_with_its_links():
    shown = repository.included("before\n\n<!-- include: benchmarks/README.md#growth -->", PAGES / "x.md")
    assert shown.startswith("before\n\n")
    assert "    python benchmarks/growth.py" in shown
    assert "](/docs/figures/growth.svg)" in shown
    assert "## " not in shown
    with pytest.raises(ValueError, match="has no section #nothing"):
        repository.included("<!-- include: benchmarks/README.md#nothing -->", PAGES / "x.md")


def test_code_is_left_alone():
    code = "```python\n[a](b.md)\n```"
    assert repository.included(code, PAGES / "faq.md") == code


def test_numbers_of_benchmarks_are_not_typed_anew():
    """Pages that tell of measurements take them from where the command is that made them."""
    for page in ("evidence.md", "benchmarks.md", "concepts/shortcut.md", "concepts/cost.md"):
        assert "<!-- include: benchmarks/README.md" in (PAGES / page).read_text(encoding="utf-8"), page
