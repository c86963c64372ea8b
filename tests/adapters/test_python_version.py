"""Adapters that need Python 3.11 say so on Python 3.10."""

import subprocess
import sys

import pytest


def run(code):
    old = "import sys; sys.version_info = (3, 10, 4, 'final', 0); "
    return subprocess.run([sys.executable, "-c", old + code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["transformers", "trl"])
def test_an_adapter_refuses_python_310(module):
    result = run(f"import uds_adapters.{module}")
    assert result.returncode == 1
    assert "need Python 3.11 or newer, this is Python 3.10" in result.stderr


def test_the_command_refuses_python_310_without_a_traceback():
    result = run("from uds_adapters.lab.__main__ import main; main()")
    assert result.returncode == 1
    assert result.stderr.startswith("Error: the Hugging Face adapters and the uds command need Python 3.11 or newer")
    assert len(result.stderr.splitlines()) == 1
