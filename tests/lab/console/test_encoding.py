"""Output in encodings that have few characters."""

import io
import os
import subprocess
import sys

import pytest

from uds_adapters.lab.console.encoding import print_any_text


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"1 +/- 2 ... \\u4e2d \\xe9 \\udcff"),
        ("latin-1", b"1 \xb1 2 ... \\u4e2d \xe9 \\udcff"),
        ("utf-8", b"1 \xc2\xb1 2 \xe2\x80\xa6 \xe4\xb8\xad \xc3\xa9 \\udcff"),
    ],
)
def test_what_cannot_be_encoded_is_replaced(monkeypatch, encoding, expected):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    print_any_text()
    for stream in streams.values():
        stream.write("1 \u00b1 2 \u2026 \u4e2d \u00e9 \udcff")
        stream.flush()
        assert stream.buffer.getvalue() == expected  # type: ignore[attr-defined]


def test_streams_of_another_kind_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_any_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "surroundings",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["PYTHONIOENCODING", "LC_ALL"],
)
def test_a_whole_comparison_in_ascii(tmp_path, surroundings):
    from uds_adapters.lab.demo import scenario

    sizes = scenario.Sizes(train=24, heldout=8, texts=30, pretraining_steps=1)
    made = scenario.make(tmp_path, sizes=sizes, seed=0)
    options = f"--model {made.model} --data {made.data} --output {tmp_path / 'out'} --steps 1 --batch-size 4"
    command = [sys.executable, "-m", "uds_adapters.lab", "compare", *options.split(), "--seeds", "2"]
    command += ["--policy", "random", "--policy", "longest", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **surroundings}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"+/- is half of a 95 % interval" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
