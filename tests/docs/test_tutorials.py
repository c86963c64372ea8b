"""The tutorials run, and print what their pages show."""

import re

import literate
import pytest
from literate import TUTORIALS

PAGES = TUTORIALS.parent / "pages" / "tutorials"
SCRIPTS = sorted(file for file in TUTORIALS.glob("*.py") if literate.CELL in file.read_text(encoding="utf-8"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
HEAVY = {"trainer": "accelerate", "packing": "trl", "processes": "transformers", "report": "typer"}


def reported(text):
    """What was printed, without its numbers, and the numbers: libraries of other versions round otherwise."""
    return NUMBER.sub("#", re.sub(r"\s+", " ", text)), [float(number) for number in NUMBER.findall(text)]


def test_each_script_has_a_page_that_shows_it():
    for script in SCRIPTS:
        page = (PAGES / f"{script.stem}.md").read_text(encoding="utf-8")
        assert page.rstrip().endswith(f"<!-- include: docs/tutorials/{script.name} -->")
    assert sorted(file.stem for file in PAGES.glob("*.md")) == sorted(["index", *(file.stem for file in SCRIPTS)])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_nothing_of_a_script_is_left_out(script):
    text = script.read_text(encoding="utf-8")
    shown = literate.page(script)
    for line in text.partition(literate.CELL)[2].splitlines():
        assert line == literate.CELL or line in shown or line.removeprefix("#").removeprefix(" ") in shown, line
    for cell in literate.cells(text):
        if cell.code:
            assert text.splitlines()[cell.line - 1] == cell.code.splitlines()[0]
    assert all(said in shown for said in literate.kept(script).values())


def runs(script):
    for name in ("torch", "datasets", HEAVY.get(script.stem, "torch")):
        pytest.importorskip(name)
    words, numbers = reported(literate.run(script))
    expected, known = reported(script.with_suffix(".txt").read_text(encoding="utf-8"))
    assert words == expected
    assert numbers == pytest.approx(known, rel=0.05, abs=0.05)


def test_arrays():
    runs(TUTORIALS / "arrays.py")


@pytest.mark.slow
@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem != "arrays"], ids=lambda script: script.stem)
def test_tutorial(script):
    runs(script)


def test_a_script_that_fails_says_where(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text('"""Broken."""\n\n# %%\n# Prose.\n\nprint("fine")\n\n# %%\n\n1 / 0\n', encoding="utf-8")
    with pytest.raises(RuntimeError, match=r'broken.py", line 10'):
        literate.run(script)
