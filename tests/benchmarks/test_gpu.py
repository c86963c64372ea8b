"""`benchmarks/gpu.py`, which `.ci/gpu` runs: with tiny sizes, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GPU = ROOT / "benchmarks" / "gpu.py"


def run(folder: Path, *arguments: str, pages: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GPU), *arguments, "--device", "cpu", "--tiny", "--results", str(folder), "--pages"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *map(str, pages)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["tests", "scoring", "step", "rates", "policies", "processes", "memory"])
def test_each_part_runs_and_is_written_down(tmp_path, part):
    page = tmp_path / "gpu.md"
    page.write_text((ROOT / "docs" / "pages" / "gpu.md").read_text("utf-8"), encoding="utf-8")
    done = run(tmp_path, part, pages=(page,))
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("gpu_*.json")
    found = json.loads(file.read_text("utf-8"))
    assert found["parts"][part]["outcome"] == "passed"
    assert found["surroundings"]["device"]
    assert (found["parts"][part]["figures"] is None) is (part == "tests")
    text = page.read_text("utf-8")
    assert "Nothing was run on a GPU so far." not in text
    assert f"commit {found['surroundings']['commit']}" in text
    assert f"{part} passed" in text


def test_an_unknown_part_is_named(tmp_path):
    done = run(tmp_path, "speed")
    assert done.returncode != 0
    assert "no part speed: tests, scoring, step" in done.stderr


def test_pages_say_that_nothing_was_run_while_there_are_no_results():
    if not any((ROOT / "benchmarks" / "results").glob("gpu_*.json")):
        for page in ("docs/pages/gpu.md", "docs/pages/backends.md", "README.md"):
            assert "Nothing was run on a GPU so far." in (ROOT / page).read_text("utf-8")
