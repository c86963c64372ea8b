"""The best of a pool, in rounds."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import uds_core as uds
from uds_adapters.lab.errors import LabError
from uds_adapters.lab.score.choose import choose, number_of
from uds_adapters.lab.score.wide_features import WideFeatures, keep_rows


def features(n, seed=0, dim=8):
    generator = torch.Generator().manual_seed(seed)
    return {
        "sketch": torch.randn(n, dim, generator=generator),
        "utility": torch.rand(n, generator=generator) + 1,
        "length": torch.ones(n),
    }


def test_a_ranking_does_not_depend_on_rounds():
    loss = torch.rand(50, generator=torch.Generator().manual_seed(1))
    pool = {"loss": loss, "length": torch.ones(50)}
    best = set(loss.argsort(descending=True)[:13].tolist())
    for rounds in (1, 4, 100):
        choice = choose(uds.MaxLoss(), pool, best=13, rounds=rounds)
        assert set(np.flatnonzero(choice.rounds).tolist()) == best
        assert choice.rounds.max() == min(rounds, 13)
        np.testing.assert_array_equal(choice.columns["score"], loss.numpy())


def test_rounds_are_the_policy_with_its_memory():
    """The same as choosing by hand, from what is left, with the state that the policy hands on."""
    policy, pool = uds.UDS(dim=8, alpha=3.0), features(20)
    left, state, expected = list(range(20)), None, {}
    for number, count in ((1, 2), (2, 2), (3, 3)):
        here = {name: column[left] for name, column in pool.items()}
        selection, state = uds.UDS(dim=8, alpha=3.0, count=count).choose(state, here)
        picked = [left[i] for i in selection.indices.tolist()]
        expected |= dict.fromkeys(picked, number)
        left = [i for i in left if i not in picked]
    reported = []
    choice = choose(policy, pool, best=7, rounds=3, progress=reported.append)
    assert {int(i): int(choice.rounds[i]) for i in np.flatnonzero(choice.rounds)} == expected
    assert reported == [1, 2, 3]
    first = choice.rounds == 1
    assert (choice.columns["diversity"][first] == 0).all()  # nothing was remembered
    assert (choice.columns["diversity"][~first] > 0).all()
    one = choose(policy, pool, best=7, rounds=1)
    assert set(np.flatnonzero(one.rounds)) == set(pool["utility"].argsort(descending=True)[:7].tolist())


def test_copies_are_kept_apart_by_rounds():
    pool = features(10)
    pool["sketch"][5:] = pool["sketch"][0]
    pool["utility"][:] = 1.0
    pool["utility"][5:] = 1.001
    choice = choose(uds.UDS(dim=8, alpha=1.0), pool, best=5, rounds=5)
    assert (choice.rounds[5:] > 0).sum() == 1  # of five copies


def test_options_of_the_policy_that_say_how_many_give_way():
    for policy in (uds.UDS(keep=0.5, dim=8), uds.UDS(tokens=3, dim=8), uds.UDS(count=9, dim=8)):
        assert (choose(policy, features(12), best=4, rounds=2).rounds > 0).sum() == 4


def test_what_cannot_be_chosen():
    with pytest.raises(LabError, match="'full' has no say in how many it keeps"):
        choose(uds.Full(), {"length": torch.ones(4)}, best=2, rounds=1)
    assert (choose(uds.Full(), {"length": torch.ones(4)}, best=4, rounds=1).rounds == 1).all()
    with pytest.raises(LabError, match="importance weights"):
        choose(uds.UDS(temperature=1.0, dim=8), features(4), best=2, rounds=1)


def test_how_many_in_words():
    assert [number_of(words, 8) for words in ("0.25", "1.0", "1", "8", "0.001")] == [2, 8, 1, 8, 1]
    for words in ("0", "-1", "1.5", "0.0", "some", "nan"):
        with pytest.raises(LabError, match="`keep` must be a fraction"):
            number_of(words, 8)
    with pytest.raises(LabError, match="asks for 9 records, and only 8 can be scored"):
        number_of("9", 8)


@pytest.mark.parametrize("policy", ["uds", "uds:in_batch=greedy", "uds:replace=reservoir", "diversityonly"])
def test_in_place_and_from_mapped_files_the_choice_is_the_same(policy, tmp_path):
    """Bit for bit: vectors are read from files and moved there, and no policy sees a difference."""
    made = uds.make_policy(policy, dim=8, memory=16)
    pool = features(300, dim=8)
    pool["sketch"][7] = torch.nan
    stored = WideFeatures(tmp_path)
    for part in pool["sketch"].split(37):
        stored.append("sketch", part.numpy())
    expected = choose(made, pool, best=90, rounds=7)
    found = choose(made, {**pool, **stored.mapped()}, best=90, rounds=7, in_place=True)
    np.testing.assert_array_equal(found.rounds, expected.rounds)
    assert found.columns.keys() == expected.columns.keys()
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_rows_are_moved_within_their_file(block, monkeypatch, tmp_path):
    monkeypatch.setattr("uds_adapters.lab.score.wide_features._ROWS", block)
    values = np.arange(40, dtype=np.int64).reshape(20, 2)
    stored = WideFeatures(tmp_path)
    stored.append("ngrams", values)
    stored.append("none", values[:, :0])
    wide = stored.mapped()
    assert tuple(wide["none"].shape) == (20, 0)
    for places in ([0, 1, 2], [0, 2, 3, 7, 9, 15, 19], [19], [], list(range(20))):
        wide = stored.mapped()["ngrams"]
        wide[:] = torch.from_numpy(values)
        left = keep_rows(wide, torch.tensor(places, dtype=torch.int64))
        np.testing.assert_array_equal(left.numpy(), values[places])
        assert not len(places) or left.data_ptr() == wide.data_ptr()
    with pytest.raises(LabError, match=r"have sizes \[2, 3\] in different parts of the data"):
        stored.append("ngrams", np.zeros((1, 3), dtype=np.int64))


@pytest.mark.slow
def test_memory_does_not_grow_by_the_vectors_of_records(tmp_path):
    """Of 4 KiB a record (195 MiB) less than 200 bytes stay in memory; pages of mapped files do not count."""
    peaks = []
    for records in (5_000, 55_000):
        stored = WideFeatures(tmp_path)
        block = np.random.default_rng(0).normal(size=(1_000, 1_024)).astype(np.float32)
        for _ in range(records // 1_000):
            stored.append("sketch", block)
        pool = {**features(records, dim=1), **stored.mapped()}
        stop, seen = threading.Event(), [0]
        watching = threading.Thread(target=watch, args=(stop, seen))
        before = anonymous()
        watching.start()
        choose(uds.UDS(memory=64), pool, best=records // 10, rounds=3, in_place=True)
        stop.set()
        watching.join()
        peaks.append(seen[0] - before)
    assert peaks[1] - peaks[0] < 200 * 50_000 + 64 * 2**20  # blocks, which do not grow


def watch(stop, seen):
    while not stop.wait(0.005):
        seen[0] = max(seen[0], anonymous())


def anonymous():
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("needs Linux, which says how much memory is of no file")
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("RssAnon"))
