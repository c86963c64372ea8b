"""Contributing: the hooks have the linter of constraints.txt, and the page names files and targets that exist."""

import re

import pytest
from repository import ROOT

TEXT = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_hooks_run_the_ruff_of_the_constraints():
    hooks = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pinned = re.findall(r"^ruff==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert hooks == pinned * 2


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([\w -]+?) +#", TEXT, flags=re.MULTILINE))))
def test_make_targets_exist(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}:", makefile, flags=re.MULTILINE) for name in target.split())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:uds_core|tests|docs|benchmarks)/[\w/.-]+", TEXT))))
def test_paths_exist(path):
    assert (ROOT / path.rstrip(".")).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_to_files(link):
    assert (ROOT / ".github" / link).exists()
