"""Processes that train: their errors are reported, their ends survived, and Ctrl-C leaves what can be gone on with."""

import os
import signal
import subprocess
import sys
import time

import pytest

from uds_adapters.lab.comparison import workers
from uds_adapters.lab.comparison.plan import Plan
from uds_adapters.lab.comparison.run_store import Runs
from uds_adapters.lab.demo import scenario
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.training.settings import Settings

SETTINGS = Settings(keep=0.25, batch_size=8, steps=2, learning_rate=1e-3, threads=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=30, pretraining_steps=1)
    return scenario.make(tmp_path_factory.mktemp("demo"), sizes=sizes, seed=0)


def script(tmp_path, monkeypatch, body):
    """Processes run `body` in the place of the worker."""
    file = tmp_path / "worker.py"
    file.write_text(f"import json, os, sys, time\nsay = lambda **v: print(json.dumps(v), flush=True)\n{body}", "utf-8")
    real = subprocess.Popen
    monkeypatch.setattr(workers.subprocess, "Popen", lambda command, **o: real([command[0], str(file)], **o))


EACH = "for line in sys.stdin:\n    reported = json.loads(line)\n"


def test_each_pair_is_handed_out_once_and_progress_is_told(tmp_path, monkeypatch):
    script(tmp_path, monkeypatch, EACH + "    say(step=1)\n    say(step=2)\n    say(done=True)\n")
    pairs = [(policy, seed) for seed in range(3) for policy in ("a", "b")]
    reported = []
    workers.train(pairs, folder=tmp_path, number=3, progress=lambda *step: reported.append(step))
    assert sorted(reported) == sorted((*pair, step) for pair in pairs for step in (1, 2))


def test_what_policies_need_is_made_by_one_before_all_else(tmp_path, monkeypatch):
    log = tmp_path / "log"
    script(tmp_path, monkeypatch, EACH + f"    open({str(log)!r}, 'a').write(line)\n    say(done=True)\n")
    workers.train([("a", 0), ("a", 1)], folder=tmp_path, number=2, progress=lambda *_: None, prepare=["greats"])
    assert log.read_text(encoding="utf-8").splitlines()[0] == '{"prepare": ["greats"]}'


def test_an_error_is_told_as_it_is_and_ends_the_others(tmp_path, monkeypatch):
    body = "    say(error='mend the data') if reported['policy'] == 'bad' else time.sleep(60)\n"
    script(tmp_path, monkeypatch, EACH + body)
    began = time.monotonic()
    with pytest.raises(LabError, match="mend the data"):
        workers.train([("good", 0), ("bad", 0)], folder=tmp_path, number=2, progress=lambda *_: None)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("body", "said"),
    [("os.kill(os.getpid(), 9)", r"exit code -9 \(killed, as when memory runs out\)"), ("sys.exit(3)", "exit code 3;")],
)
def test_a_process_that_dies_is_named_with_what_it_did(tmp_path, monkeypatch, body, said):
    script(tmp_path, monkeypatch, EACH + f"    {body}\n")
    with pytest.raises(LabError, match=f"^uds, seed 4: its process ended with {said}.*the same command goes on"):
        workers.train([("uds", 4)], folder=tmp_path, number=1, progress=lambda *_: None)


@pytest.mark.parametrize(
    ("visible", "expected"), [("2,5", ["2", "5", "2"]), ("GPU-abc", ["GPU-abc"] * 3), ("", [None] * 3)]
)
def test_each_process_sees_one_gpu(tmp_path, monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    real = subprocess.Popen

    def noted(command, *, env, **options):
        seen.append(env.get("CUDA_VISIBLE_DEVICES") or None)
        return real(
            [command[0], "-c", EACH.replace("for", "import sys, json\nfor") + "    print('{\"done\": 1}')"], **options
        )

    monkeypatch.setattr(workers.subprocess, "Popen", noted)
    workers.train([("a", 0)], folder=tmp_path, number=3, progress=lambda *_: None)
    assert seen == expected


@pytest.mark.slow
def test_a_worker_trains_and_says_what_is_wrong(source, tmp_path):
    plan, runs = Plan(source=source, settings=SETTINGS, seed=0), Runs(tmp_path / "out")
    runs.claim(plan, overwrite=False)
    reported = []
    workers.train([("random", 0)], folder=runs.folder, number=1, progress=lambda *step: reported.append(step))
    assert reported == [("random", 0, 1), ("random", 0, 2)]
    assert runs.finished("random", 0) is not None
    with pytest.raises(LabError, match="unknown policy 'best'"):
        workers.train([("best", 0)], folder=runs.folder, number=1, progress=lambda *_: None)


def command(source, output, *more):
    options = ["--model", source.model, "--data", source.data, "--steps", 400, "--batch-size", 8, "--output", output]
    # a test that runs in the background inherits that Ctrl-C is ignored
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from uds_adapters.lab.__main__ import main; main()"
    return [sys.executable, "-c", code, "compare", *map(str, options), "--policy", "random", "--policy", "uds", *more]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_leaves_what_can_be_gone_on_with(source, tmp_path, jobs):
    output = tmp_path / "out"
    asked = command(source, output, "--jobs", jobs, "--threads", "1")
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    audits = output / "runs"
    while process.poll() is None and not list(audits.glob("*.audit.jsonl")):
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes get it
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Interrupted." in said
    assert "the same command goes on" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not (output / "results.json").exists()
    assert not list(output.rglob("*.tmp"))
    finished = len(list(audits.glob("*-seed0.json")))
    assert finished < 2
