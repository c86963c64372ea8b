"""What was scored and chosen, on disk."""

import builtins
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_adapters import audit as module
from uds_adapters.audit import Audit, read


@pytest.fixture(params=[".jsonl", ".parquet"])
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"audit{request.param}"


def fill(audit, steps, *, size=3, run=0):
    for step in steps:
        parts = {"score": [step + 0.5 * i for i in range(size)], "length": list(range(5, 5 + size))}
        audit.record(step, [100 * step + i for i in range(size)], parts, [step % size], run=run)


def steps_of(path):
    return [row["step"] for row in read(path) if row["position"] == 0]


def size_on_disk(path):
    return sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())


def test_a_row_for_each_candidate(path):
    with Audit(path) as audit:
        parts = {"score": [1.5, math.nan], "utility": [1.0, -math.inf], "length": [7, 0]}
        audit.record(3, ["a", "b"], parts, [1], alpha=0.25)
    common = {"step": 3, "alpha": 0.25}
    assert list(read(path)) == [
        {"position": 0, "id": "a", "score": 1.5, "utility": 1.0, "length": 7, "chosen": False, **common},
        {"position": 1, "id": "b", "score": None, "utility": None, "length": 0, "chosen": True, **common},
    ]


def test_lines_are_strict_json_in_a_stated_order(tmp_path):
    Audit(tmp_path / "audit.jsonl").record(0, None, {"score": [math.inf]}, [0], alpha=math.nan)
    assert (tmp_path / "audit.jsonl").read_text() == (
        '{"step": 0, "position": 0, "score": null, "chosen": true, "alpha": null}\n'
    )


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_selection_is_recorded_as_it_comes(path, library):
    xp = pytest.importorskip(library)
    logits = xp.asarray(np.random.default_rng(0).normal(size=(4, 3, 7)).astype(np.float32))
    policy = uds.UDS(keep=0.5, memory=4, dim=8, alpha=1.0)
    selection, _ = policy.choose(None, policy.examine(uds.Candidates(logits)))
    with Audit(path) as audit:
        audit.record(0, None, selection.table(), selection.indices.tolist(), alpha=float(selection.metrics["alpha"]))
    rows = list(read(path))
    assert [row["utility"] for row in rows] == selection.table()["utility"].tolist()
    assert {row["position"] for row in rows if row["chosen"]} == set(selection.indices.tolist())
    assert {row["alpha"] for row in rows} == {1.0}


def test_an_audit_is_continued_and_a_resumed_run_replaces_its_steps(path):
    with Audit(path) as audit:
        fill(audit, range(6))
    with Audit(path) as audit:
        fill(audit, range(4, 5), size=2, run=1)
    rows = list(read(path))
    assert [(row["step"], row["position"], row["run"]) for row in rows] == [
        *((step, position, 0) for step in range(4) for position in range(3)),
        *((4, position, 1) for position in range(2)),  # and nothing of the first run's steps 4 and 5
    ]


@given(runs=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=5))
def test_only_the_last_history_is_read(runs):
    """Against the plain rule: a record replaces itself and all later ones."""
    history, steps = [], []
    for number, (start, length) in enumerate(runs):
        for step in range(start, start + length):
            history = [kept for kept in history if kept[0] < step] + [(step, number)]
            steps.append((step, number))
    latest = module._latest([step for step, _ in steps])
    assert [record for record, kept in zip(steps, latest, strict=True) if kept] == history


def test_every_nth_step_is_recorded(path):
    with Audit(path, every=3) as audit:
        fill(audit, range(8))
    assert steps_of(path) == [0, 3, 6]


def test_without_close_nothing_is_missing(path):
    fill(Audit(path), range(5))
    assert steps_of(path) == list(range(5))


def test_the_limit_holds_after_every_record_and_the_oldest_goes_first(path):
    limit = 40_000
    audit = Audit(path, limit_bytes=limit)
    for step in range(400):
        fill(audit, [step], size=8)
        assert size_on_disk(path) <= limit
    audit.close()
    kept = steps_of(path)
    assert kept == list(range(kept[0], 400))
    assert kept[0] > 0
    assert size_on_disk(path) >= 0.7 * limit
    fill(Audit(path, limit_bytes=limit), [400])
    assert steps_of(path) == [*kept, 400]


def test_the_limit_holds_with_many_small_parts_too(path):
    audit = Audit(path, limit_bytes=60_000)
    for step in range(150):
        fill(audit, [step], size=8)
        if step % 5 == 4:
            audit.close()
        assert size_on_disk(path) <= 60_000
    assert steps_of(path)[-1] == 149


def test_identities_of_any_size_become_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    with Audit(tmp_path / "audit.parquet") as audit:
        audit.record(0, [2**70, 1], {"score": [1, 2.5]}, np.array([0]))
    assert [row["id"] for row in read(tmp_path / "audit.parquet")] == [str(2**70), "1"]


def test_one_record_must_fit_the_limit(path):
    with pytest.raises(ValueError, match="`limit_bytes` must be at least 8 times one record, here"):
        fill(Audit(path, limit_bytes=1000), [0])


def test_wherever_the_last_line_is_torn_the_others_stay(tmp_path):
    path = tmp_path / "audit.jsonl"
    fill(Audit(path), range(3))
    whole = path.read_bytes()
    start = whole.rfind(b"\n", 0, -1) + 1
    before = list(read(path))
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert list(read(path)) == before[:-1]
        audit = Audit(path)
        assert path.read_bytes() == whole[:start]
        fill(audit, [2])
        assert list(read(path)) == before
    for rubbish in (b"\0" * 50, b"\0" * 50 + b"\n", b'{"step"\n[]\n'):  # as a power failure leaves it
        path.write_bytes(whole + rubbish)
        assert list(read(path)) == before
        Audit(path)
        assert path.read_bytes() == whole


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "audit.jsonl"
    fill(Audit(path), range(2))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "{\n" + "".join(lines[1:]))
    with pytest.raises(ValueError, match=r"audit\.jsonl is damaged at line 2: delete that line"):
        list(read(path))


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    fill(audit, range(2))
    opened = type(path).open

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def write(self, data):
            self.stream.write(data[:20])
            raise OSError(28, "No space left on device")

    def full(file, mode="r", *args, **kwargs):
        stream = opened(file, mode, *args, **kwargs)
        return Full(stream) if mode == "ab" else stream

    monkeypatch.setattr(type(path), "open", full)
    with pytest.raises(OSError, match="No space left"):
        fill(audit, [2])
    monkeypatch.undo()
    fill(audit, [2])
    assert steps_of(path) == [0, 1, 2]


def test_parquet_is_a_folder_that_pyarrow_reads(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "audit.parquet"
    with Audit(path, limit_bytes=8 * 3000) as audit:
        for step in range(30):
            name = f"s{step}" if step > 20 else step
            audit.record(step, [name], {"score": [math.nan if step < 15 else 0.5]}, [0])
    assert len(list(path.glob("*.parquet"))) == 1
    table = parquet.read_table(path)
    assert table.column("step").to_pylist() == list(range(30))
    assert table.column("id").to_pylist() == [str(step) if step <= 20 else f"s{step}" for step in range(30)]
    assert str(table.schema.field("score").type) == "double"


@pytest.mark.parametrize("call", ["unlink", "replace"])
def test_killed_between_two_forms_of_a_part_nothing_is_read_twice(tmp_path, call, monkeypatch):
    pytest.importorskip("pyarrow")
    path = tmp_path / "audit.parquet"
    audit = Audit(path)
    fill(audit, range(5))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), call, killed)
    with pytest.raises(KeyboardInterrupt):
        audit.close()
    monkeypatch.undo()
    assert steps_of(path) == list(range(5))
    with Audit(path) as audit:
        fill(audit, range(5, 7))
    assert steps_of(path) == list(range(7))
    assert {file.suffix for file in path.iterdir()} == {".parquet"}


def test_audits_side_by_side_do_not_meet(tmp_path):
    for name in ("a", "a.b", "a*"):
        fill(Audit(tmp_path / f"{name}.jsonl", limit_bytes=8 * 600), range(5), run=len(name))
    for name in ("a", "a.b", "a*"):
        assert {row["run"] for row in read(tmp_path / f"{name}.jsonl")} == {len(name)}
        assert steps_of(tmp_path / f"{name}.jsonl") == list(range(5))


WRITER = """
import sys
from uds_adapters.audit import Audit

path, step = sys.argv[1], int(sys.argv[2])
audit = Audit(path, limit_bytes=1 << 23)
while True:
    audit.record(step, None, {"score": [float(step)] * 500}, [step % 500], note="x" * 200)
    if step % 5 == 4:
        audit.close()
        print(step, flush=True)
    step += 1
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_killed_while_it_writes_is_continued(path):
    rng, step = random.Random(0), 0
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path), str(step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert int(run.stdout.readline()) >= step
            time.sleep(0.1 * rng.random())
            run.kill()
        assert run.returncode == -signal.SIGKILL
        found: dict[int, int] = {}
        for row in read(path):
            assert row["score"] == row["step"]
            assert row["position"] == found.get(row["step"], 0)
            found[row["step"]] = row["position"] + 1
        assert sorted(found) == list(range(min(found), max(found) + 1))
        assert all(size == 500 for other, size in found.items() if other != max(found))
        step = max(found)  # that record may be torn: the next run writes it again
    assert step > 5


@pytest.mark.parametrize(
    ("arguments", "numbers", "error", "words"),
    [
        ((-1, None, {"score": [1.0]}, [0]), {}, ValueError, "`step` must be a whole number of at least 0, got -1"),
        ((0, ["a"], {"score": [1.0, 2.0]}, [0]), {}, ValueError, r"one value for each candidate, got \{'id': 1, 'sc"),
        ((0, None, {}, []), {}, ValueError, "one value for each candidate, got none"),
        ((0, None, {"score": [1.0]}, [1]), {}, ValueError, r"distinct positions among the 1 candidates, got \[1\]"),
        ((0, None, {"score": [1.0, 2.0]}, [1, 1]), {}, ValueError, "distinct positions"),
        ((0, None, {"chosen": [1.0]}, [0]), {}, ValueError, r"must differ .* got \['chosen'\]"),
        ((0, None, {"alpha": [1.0]}, [0]), {"alpha": 1}, ValueError, r"must differ .* got \['alpha', 'alpha'\]"),
        ((0, None, {"score": [[1.0]]}, [0]), {}, TypeError, r"'score' must hold numbers, strings or None, got \[1.0\]"),
        ((0, None, {"score": [1.0]}, [0]), {"who": object()}, TypeError, "'who' must hold numbers"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, arguments, numbers, error, words):
    audit = Audit(tmp_path / "audit.jsonl")
    with pytest.raises(error, match=words):
        audit.record(*arguments, **numbers)
    assert not (tmp_path / "audit.jsonl").exists()


def test_paths_and_options_are_checked_at_once(tmp_path):
    with pytest.raises(
        ValueError, match=r"`path` must end in \.jsonl \(a file\) or \.parquet \(a folder\), got '.*csv'"
    ):
        Audit(tmp_path / "audit.csv")
    (tmp_path / "a.parquet").write_text("")
    with pytest.raises(ValueError, match=r"must be a folder, which .*a\.parquet is not"):
        Audit(tmp_path / "a.parquet")
    wrong: list[dict[str, Any]] = [{"every": 0}, {"limit_bytes": 0.5}]
    for options in wrong:
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            Audit(tmp_path / "a.jsonl", **options)
    with pytest.raises(FileNotFoundError, match="no audit at"):
        list(read(tmp_path / "none.jsonl"))


def test_parquet_without_pyarrow_says_what_to_do(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install pyarrow, or give a path that ends in \.jsonl"):
        Audit(tmp_path / "audit.parquet")
    fill(Audit(tmp_path / "audit.jsonl"), [0])


def test_every_64th_record_is_forced_to_the_disk(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(os, "fsync", forced.append)
    audit = Audit(tmp_path / "audit.jsonl")
    fill(audit, range(129))
    assert len(forced) == 2
    audit.close()
    assert len(forced) == 3


def test_lines_survive_words_of_any_kind(path):
    names = ["a\nb", "ü\u2028", '"', "\\"]
    with Audit(path) as audit:
        audit.record(0, names, {"score": np.zeros(4)}, [])
    assert [row["id"] for row in read(path)] == names


def lost(path, first=0, last=5, **options):
    """What an audit says when a checkpoint names the records from step `first` to `last`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Audit(path, **options).warn_of_missing(first, last)
    assert len(caught) < 2
    found = re.search(r"has no records of steps (.*), which", str(caught[0].message)) if caught else None
    return found[1] if found else ""


def test_records_that_were_deleted_are_named(path):
    with Audit(path) as audit:
        fill(audit, range(8))
    assert lost(path) == ""
    assert lost(path, last=9) == "8 to 9"
    empty(path)
    assert lost(path) == "0 to 5"
    assert lost(path, first=2, last=2) == "2"
    with Audit(path) as audit:
        fill(audit, range(4, 9))
    assert lost(path) == "0 to 3"
    assert lost(path, first=4) == ""
    assert lost(path, last=3) == "0 to 3"


def empty(path):
    """Delete a folder's files, or empty the file."""
    if path.suffix == ".jsonl":
        path.write_text("")
        return
    for file in path.iterdir():
        file.unlink()


def steps_in(file):
    pyarrow = pytest.importorskip("pyarrow.parquet") if file.suffix == ".parquet" else None
    if pyarrow is not None:
        return pyarrow.read_table(file)["step"].to_pylist()
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("loss", ["deleted", "emptied"])
def test_a_part_that_was_lost_is_named_and_those_dropped_for_the_limit_are_not(path, loss):
    audit = Audit(path, limit_bytes=80_000)
    fill(audit, range(400), size=8)
    parts = sorted(file for file in path.parent.rglob("*.0*" if path.suffix == ".jsonl" else "0*") if file.is_file())
    assert len(parts) > 4
    assert "000001" not in parts[0].name
    assert lost(path, last=399) == ""
    parts[0].unlink()
    assert lost(path, last=399) == ""
    steps = steps_in(parts[2])
    parts[2].unlink() if loss == "deleted" else parts[2].write_bytes(b"")
    assert lost(path, last=399) == f"{steps[0]} to {steps[-1]}"


def test_what_a_killed_run_wrote_after_its_checkpoint_is_not_missed(path):
    with Audit(path, every=3) as audit:
        fill(audit, range(12))
        fill(audit, range(7, 9))
    assert lost(path, last=9) == ""
    empty(path)
    with Audit(path, every=3) as audit:
        fill(audit, range(8, 12))
    assert lost(path, last=6) == "0 to 6"
