"""The site is built, strictly, and fetches nothing from elsewhere."""

import os
import re
import subprocess
import sys
import zlib

import pytest
from repository import ROOT

import uds_core as uds


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("mkdocs", "material", "mkdocstrings", "ziamath", "typer"):
        pytest.importorskip(name, reason=f"needs {name}: `make docs` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "mkdocs", "build", "--strict", "--config-file", "docs/mkdocs.yml", "--site-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
def test_every_public_name_can_be_linked_to(site):
    inventory = (site / "objects.inv").read_bytes()
    names = zlib.decompress(inventory.split(b"zlib.\n", 1)[1]).decode()
    for name in uds.__all__:
        assert f"uds_core.{name} " in names, name


@pytest.mark.slow
def test_a_browser_fetches_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(https?://[^"]+)"', text)
        assert not [url for url in fetched if 'rel="canonical"' not in url], page
    style = (site / "assets" / "style.css").read_text(encoding="utf-8")
    assert "http" not in style
    assert (site / "assets" / "stix.woff").stat().st_size < 400_000


@pytest.mark.slow
def test_formulas_are_set(site):
    shown = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert sum(text.count("<math ") for text in shown) > 100
    assert not [text for text in shown if 'class="arithmatex"' in text or ".. math::" in text]


@pytest.mark.slow
def test_the_page_of_the_command_knows_all_that_the_command_does(site):
    import typer.main

    from uds_adapters.lab.cli import app

    page = (site / "reference" / "command" / "index.html").read_text(encoding="utf-8")
    commands = vars(typer.main.get_command(app))["commands"]
    for name, command in commands.items():
        assert f'id="uds-{name}"' in page
        for one in command.params:
            assert not one.opts[0].startswith("--") or one.opts[0] == "--help" or one.opts[0] in page
