"""What a selector remembers, on disk."""

import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

import uds_core as uds  # noqa: E402
from uds_adapters import checkpoints  # noqa: E402


def tensors():
    return {
        "state.rows": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "state.half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "state.size": torch.tensor(2),
        "state.none": torch.zeros(0, 4),
        "state.flags": torch.tensor([True, False]),
    }


ABOUT = {"policy": "uds", "options": {"keep": 0.25, "seed": 0, "dim": 16}}


def same(left, right):
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.fixture
def file(tmp_path):
    checkpoints.save(tmp_path / "uds.safetensors", tensors(), ABOUT)
    return tmp_path / "uds.safetensors"


def test_round_trip(file):
    back, about = checkpoints.load(file)
    assert same(back, tensors())
    assert about == ABOUT
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_other_programs_read_the_tensors(file):
    assert same(safetensors.load_file(file), tensors())


def test_an_empty_state_is_a_checkpoint_too_and_folders_are_made(tmp_path):
    file = tmp_path / "run" / "checkpoint-1" / "uds.safetensors"
    checkpoints.save(str(file), {}, {})
    assert checkpoints.load(str(file)) == ({}, {})


def test_views_and_tensors_that_share_memory_are_saved(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4).requires_grad_()
    parts = {"turned": whole.T, "row": whole[1], "again": whole[1]}
    checkpoints.save(tmp_path / "file", parts, {})
    assert same(checkpoints.load(tmp_path / "file")[0], parts)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(0, 4), max_size=3), seed=st.integers(0, 99), name=st.text(min_size=1, max_size=8))
def test_any_name_and_shape_comes_back(tmp_path, shape, seed, name):
    name = name.encode("utf-8", "ignore").decode() or "x"
    saved = {name: torch.from_numpy(np.random.default_rng(seed).normal(size=shape))}
    checkpoints.save(tmp_path / "any", saved, {"what": name})
    back, about = checkpoints.load(tmp_path / "any", about={"what": name})
    assert same(back, saved)
    assert about == {"what": name}


def test_no_flipped_bit_goes_unseen(file):
    """One bit of every byte, header and data alike: refused, or read as it was."""
    whole, rng = file.read_bytes(), random.Random(0)
    unseen = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            back, about = checkpoints.load(file)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017 - the other branch is as good
        else:
            unseen += [place] if not (same(back, tensors()) and about == ABOUT) else []
    assert not unseen


def test_every_cut_is_seen(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="was cut off or damaged"):
            checkpoints.load(file)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os._exit, (1,)


def test_other_files_are_named_and_nothing_is_unpickled(tmp_path):
    file = tmp_path / "uds.safetensors"
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="no safetensors file, or was cut off or damaged"):
        checkpoints.load(file)
    torch.save({"a": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match=r"start without it: the selection then begins with an empty memory"):
        checkpoints.load(file)
    for metadata in (None, {"format": "pt"}, {"uds": "[]"}, {"uds": "{"}, {"uds": '{"format": "else", "version": 1}'}):
        safetensors.save_file({"a": torch.zeros(2)}, file, metadata=metadata)
        with pytest.raises(ValueError, match="a safetensors file, but no selector's checkpoint"):
            checkpoints.load(file)
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "missing")


def test_a_newer_format_says_to_update(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    checkpoints.save(tmp_path / "file", tensors(), {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has version 2 of the format, .* reads up to version 1: update uds-core"):
        checkpoints.load(tmp_path / "file")


def test_the_header_says_what_the_file_is(file):
    with safetensors.safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["uds"])
    assert header == {"format": "uds_core.checkpoint", "version": 1, "library": uds.__version__, "about": ABOUT}


def test_about_is_compared_and_each_difference_named(tmp_path):
    file = tmp_path / "file"
    checkpoints.save(file, {}, {"policy": "uds", "seed": 0, "sizes": (2, 3), "memory": 8})
    checkpoints.load(file, about={"policy": "uds", "sizes": [2, 3]})
    words = "saved with seed=0, now seed=1; saved with memory=8, now memory=9; saved without world, now world=2: use"
    with pytest.raises(ValueError, match=words):
        checkpoints.load(file, about={"policy": "uds", "seed": 1, "memory": 9, "world": 2})


def test_options_may_change_and_the_policy_may_not(file):
    now = {"policy": "uds", "options": {"keep": 0.5, "seed": 1, "dim": 16}}
    _, about = checkpoints.load(file, about=now)
    changed = ["saved with keep=0.25, now keep=0.5", "saved with seed=0, now seed=1"]
    assert checkpoints.differences(about, now) == changed
    words = "saved with policy='uds', now policy='random'; saved with keep=0.25, now without keep"
    with pytest.raises(ValueError, match=words):
        checkpoints.load(file, about={"policy": "random", "options": {}})


def test_differences_know_none_from_nothing_and_numbers_by_value():
    assert checkpoints.differences({"a": 1, "b": (1, 2)}, {"a": 1.0, "b": [1, 2]}) == []
    assert checkpoints.differences({"a": None}, {}) == ["saved with a=None, now without a"]
    assert checkpoints.differences({}, {"a": None}) == ["saved without a, now a=None"]


def test_a_state_that_the_core_refuses_is_explained_by_the_differences(tmp_path):
    """The core's check decides; the description says which option it was."""
    was, now = uds.UDS(keep=0.5, memory=4, dim=8), uds.UDS(keep=0.25, memory=4, dim=8, seed=1)
    logits = np.random.default_rng(0).normal(size=(3, 4, 9)).astype(np.float32)
    _, state = was.choose(None, was.examine(uds.Candidates(logits)))
    checkpoints.save(
        tmp_path / "file",
        {name: torch.from_numpy(array.copy()) for name, array in uds.flatten(state).items()},
        checkpoints.describe(was),
    )
    saved, about = checkpoints.load(tmp_path / "file", about=checkpoints.describe(now))
    arrays = {name: tensor.numpy() for name, tensor in saved.items()}
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(now.init(now.examine(uds.Candidates(logits))), arrays)
    assert checkpoints.differences(about, checkpoints.describe(now)) == [
        "saved with keep=0.5, now keep=0.25",
        "saved with seed=0, now seed=1",
    ]
    again = dataclasses.replace(was, keep=0.25, alpha=0.1)
    assert uds.restore(again.init(again.examine(uds.Candidates(logits))), arrays).step == 1


def test_policies_are_described_by_name_and_options():
    about = checkpoints.describe(uds.UDS(keep=0.25, seed=3))
    assert about["policy"] == "uds"
    assert {name: about["options"][name] for name in ("keep", "seed", "alpha", "count")} == {
        "keep": 0.25,
        "seed": 3,
        "alpha": "auto",
        "count": None,
    }
    assert about["options"].keys() == {field.name for field in dataclasses.fields(uds.UDS)}
    for name in uds.names():
        assert json.loads(json.dumps(checkpoints.describe(uds.get(name)()), allow_nan=False))["policy"] == name


def test_arrays_are_described_by_their_content_whatever_their_library():
    centre = np.linspace(0, 1, 5, dtype=np.float32)
    described = checkpoints.describe(uds.UDS(centre=centre))
    assert described["options"]["centre"].keys() == {"shape", "dtype", "sha256"}
    assert described == checkpoints.describe(uds.UDS(centre=torch.from_numpy(centre)))
    assert described != checkpoints.describe(uds.UDS(centre=centre + 1))
    half = checkpoints.describe(uds.UDS(centre=torch.zeros(5, dtype=torch.bfloat16)))["options"]["centre"]
    assert (half["shape"], half["dtype"]) == ([5], "bfloat16")


def score(x):
    return x


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A policy of another package, with options of all kinds."""

    rank: tuple[int, int] = (8, 128)
    wide: Any = 0.5
    number: Any = 3
    limit: float = float("inf")
    by: Any = score
    model: Any = dataclasses.field(default_factory=lambda: torch.nn.Linear(2, 2))
    table: Any = dataclasses.field(default_factory=lambda: OrderedDict(a=(1, None)))


class Plain:
    """A policy that is no dataclass."""

    def __init__(self):
        self.keep, self._cache = 0.5, object()


def test_foreign_policies_are_described_too():
    about = checkpoints.describe(Foreign(wide=np.float32(0.5), number=np.int64(3)))  # pyright: ignore[reportArgumentType]
    assert about["policy"] == f"{__name__}.Foreign"
    assert about["options"] == {
        "rank": [8, 128],
        "wide": 0.5,
        "number": 3,
        "limit": "inf",
        "by": f"{__name__}.score",
        "model": "torch.nn.modules.linear.Linear",
        "table": {"a": [1, None]},
    }
    assert checkpoints.describe(Plain())["options"] == {"keep": 0.5}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("about", "error"), [({"a": {1, 2}}, TypeError), ({"a": float("nan")}, ValueError)])
def test_about_must_be_json_and_nothing_is_written_if_it_is_not(file, about, error):
    with pytest.raises(error, match="`about` must be JSON data"):
        checkpoints.save(file, {}, about)
    assert checkpoints.load(file)[1] == ABOUT


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_before_the_renaming_leaves_the_last_checkpoint(file, call, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(file, {}, {"policy": "other"})
    monkeypatch.undo()
    assert same(checkpoints.load(file)[0], tensors())
    checkpoints.save(file, {}, {"policy": "other"})
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert checkpoints.load(file)[1] == {"policy": "other"}


KILLS = """
# Forks from one process that has imported torch; every child saves on and on until it is killed.
import os, random, signal, sys, time
from pathlib import Path
import torch
from uds_adapters import checkpoints

def write(file, number):
    while True:
        number += 1
        checkpoints.save(file, {"state.rows": torch.full((100, 1000), number), "state.size": torch.tensor(number)},
                         {"number": number})

torch.set_num_threads(1)  # a forked child must not wait for its parent's threads
file, rng, last, unfinished = Path(sys.argv[1]), random.Random(0), 0, 0
checkpoints.save(file, {"state.rows": torch.full((1,), 0), "state.size": torch.tensor(0)}, {"number": 0})
for _ in range(20):
    child = os.fork()
    if child == 0:
        write(file, last)
    time.sleep(0.02 + 0.05 * rng.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tensors, about = checkpoints.load(file)
    assert about["number"] >= last, (about, last)
    last = about["number"]
    assert all((tensor == last).all() for tensor in tensors.values()), last
    unfinished += file.with_name(file.name + ".tmp").exists()
checkpoints.save(file, tensors, about)
assert [entry.name for entry in file.parent.iterdir()] == [file.name]
print(last, unfinished)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_killed_run_leaves_the_last_whole_checkpoint(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLS, str(tmp_path / "uds.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, unfinished = map(int, done.stdout.split())
    assert written > 0
    assert unfinished > 0  # some fell into the middle of a write
