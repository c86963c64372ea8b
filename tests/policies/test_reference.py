"""Reference mode: the released algorithm number for number, its known defects, and that `UDS` has none of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pools
import pytest
import reference

import uds_core as uds

TIME, VOCAB, RANK = 12, pools.VOCAB, (3, 10)


def draws(seed):
    """Signs and indices of both sides, as a run of the released code could have drawn them."""
    rng = np.random.default_rng(seed)
    signs = tuple(rng.integers(0, 2, size=n) * 2.0 - 1 for n in (TIME, VOCAB))
    indices = tuple(rng.integers(0, n, size=r) for n, r in zip((TIME, VOCAB), RANK, strict=True))
    return {"signs": signs, "indices": indices}


def small(**options):
    return uds.Reference(**{"time": TIME, "rank": RANK, "memory": 10, "count": 3, "alpha": 0.02, **options})


def queue(backend, memory):
    """The memory's rows, oldest first."""
    rows = backend.numpy(memory.rows)
    return np.roll(rows, -memory.cursor, axis=0) if memory.size == len(rows) else rows[: memory.size]


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "head"])
def test_thirty_steps_as_the_written_out_matrices(backend, dense):
    policy = small(**draws(0))
    oracle = reference.Released(count=3, alpha=0.02, memory=10, **draws(0))
    state: Any = None
    for step in range(30):
        pool = pools.samples(step)
        features = policy.examine(pools.candidates(backend, pool, dense=dense))
        if step == 15:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = oracle.step(pool.logits)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-5)
        kept, known = queue(backend, state.memory), np.array(oracle.queue)
        np.testing.assert_allclose(kept, known, rtol=1e-5, atol=1e-5 * np.abs(known).max())
    assert state.memory.size == 10


def test_signs_and_indices_come_from_the_seed_where_they_are_not_given():
    sample = uds.Candidates(np.random.default_rng(0).normal(size=(2, 5, VOCAB)))
    seeded = small(seed=3).examine(sample)["sketch"]
    np.testing.assert_array_equal(seeded, small(seed=3).examine(sample)["sketch"])
    assert (seeded != small(seed=4).examine(sample)["sketch"]).any()
    half = small(seed=3, signs=draws(0)["signs"]).examine(sample)["sketch"]
    assert (half != seeded).any()
    assert (half != small(seed=4, signs=draws(0)["signs"]).examine(sample)["sketch"]).any()


@pytest.mark.parametrize("options", [{"seed": 1}, {"signs": draws(1)["signs"]}, {"indices": draws(1)["indices"]}])
def test_a_memory_of_other_sketches_is_refused(options):
    policy = small(seed=0)
    features = policy.examine(uds.Candidates(np.random.default_rng(0).normal(size=(2, 5, VOCAB))))
    saved = uds.flatten(policy.choose(None, features)[1])
    assert uds.restore(small(seed=0, alpha=1.0).init(features), saved).memory.size == 2
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(small(**options).init(features), saved)


def test_indices_are_whole_numbers():
    with pytest.raises(ValueError, match=r"`indices\[0\]` must be .* whole numbers"):
        small(indices=(np.full(RANK[0], 0.5), draws(0)["indices"][1]))


def test_a_small_batch_is_kept_whole(backend):
    assert sorted(pools.picks(small(count=9), backend, None, pools.samples(0))[0]) == list(range(pools.BATCH))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_neither_chosen_nor_remembered(backend, bad):
    hidden, mask, labels, *_ = pools.samples(0)
    hidden[1, 1, 2] = bad
    state: Any = pools.warm(small(), backend)
    with pytest.warns(UserWarning, match="too few have a score"):
        indices, selection, after = pools.picks(small(count=6), backend, state, pools.Pool(hidden, mask, labels))
    assert sorted(indices) == [0, 2, 3, 4, 5]
    assert np.isnan(backend.numpy(selection.scores)[1])
    assert after.memory.cursor == (state.memory.cursor + 5) % 10
    assert np.isfinite(backend.numpy(after.memory.rows)).all()


# --- units -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "vocab"), [(32, 500), (15, 301)], ids=["even", "odd"])
def test_lengths_are_inflated_by_half_the_root_of_time_times_vocab(time, vocab):
    logits = np.random.default_rng(0).normal(size=(1, time, vocab))
    policy = uds.Reference(time=time, rank=(8, 64))
    lengths = [
        np.linalg.norm(replace(policy, seed=seed).examine(uds.Candidates(logits))["sketch"]) for seed in range(150)
    ]
    ratio = np.sqrt(np.mean(np.square(lengths))) / np.linalg.norm(logits)
    factor = uds.isometric_alpha(1.0, time=time, vocab=vocab)
    assert factor == np.sqrt(time * vocab) / 2
    # rows 0 and n / 2 of each side come through whole, the others by half: (n + 1) / n or (n + 2) / n in the square
    exact = np.sqrt(np.prod([(n + 2 - n % 2) / n for n in (time, vocab)])) * factor
    assert abs(ratio / exact - 1) < 0.03


def test_published_alphas_are_converted_both_ways():
    qwen = {"time": 512, "vocab": 152_064}
    assert uds.isometric_alpha(1.5e-3, **qwen) == pytest.approx(6.618, abs=5e-4)
    assert uds.isometric_alpha(1.0, **qwen) == pytest.approx(4412, abs=0.5)
    assert uds.published_alpha(6.618, **qwen) == pytest.approx(1.5e-3, rel=1e-4)
    assert uds.published_alpha(uds.isometric_alpha(0.3, time=7, vocab=9), time=7, vocab=9) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="`vocab` must be a whole number of at least 1, got 0"):
        uds.isometric_alpha(1.0, time=512, vocab=0)


def test_a_converted_alpha_makes_the_same_trade_off():
    """Both terms of both policies agree on the average over seeds, so that the converted alpha means the same."""
    logits = np.random.default_rng(1).normal(size=(6, 32, VOCAB)) * np.linspace(1, 2, 6)[:, None, None]
    far = []
    for seed in range(60):
        ours = uds.UDS(count=2, alpha=1.0, length="none", centre="none", memory=8, dim=128, seed=seed)
        theirs = uds.Reference(count=2, alpha=1.0, time=32, rank=(8, 16), memory=8, seed=seed)
        step = []
        policies: list[uds.Policy] = [ours, theirs]
        for policy in policies:
            features = policy.examine(uds.Candidates(logits))
            _, state = policy.choose(None, features)
            selection, _ = policy.choose(state, features)
            step.append(np.mean(selection.parts["diversity"]))
        far.append(step)
    isometric, released = np.mean(far, axis=0)
    assert uds.published_alpha(isometric, time=32, vocab=VOCAB) * 32 * VOCAB / 4 == pytest.approx(released, rel=0.1)


# --- defects of the released code that `UDS` must not have -----------------------------------------------------------
# Where they are tested already: dropout while scoring and the model left wrapped in tests of the scorer; last batches
# smaller than K and the memory saved in test_torch.py; half floats in test_spectrum.py; the same projection in every
# process in test_sketch.py.


def relative_distances(policy):
    """Of a sample to itself under more padding, and to an unrelated sample, over the mean length of sketches."""
    rng = np.random.default_rng(0)
    hidden, other = rng.normal(size=(2, 1, 7, 5))
    pad = rng.normal(size=(1, 5, 5))  # a model has hidden states at padding, too
    batches = [(hidden, 0), (np.concatenate([pad, hidden], axis=1), 5), (other, 0)]
    sketches = []
    for rows, left in batches:
        mask = np.arange(rows.shape[1])[None] >= left
        sketches.append(policy.examine(uds.Candidates(rows @ pools.WEIGHT.T, mask=mask))["sketch"][0])
    itself, more, unrelated = sketches
    size = np.mean([np.linalg.norm(z) for z in sketches])
    return np.linalg.norm(itself - more) / size, np.linalg.norm(itself - unrelated) / size


def test_padding_moves_a_sample_there_and_not_here():
    far, unrelated = np.mean([relative_distances(small(rank=(8, 30), seed=seed)) for seed in range(20)], axis=0)
    assert far > 0.8 * unrelated
    assert relative_distances(uds.UDS(dim=240))[0] < 1e-12


def test_a_long_sample_is_an_error_there_and_none_here():
    long = uds.Candidates(np.random.default_rng(0).normal(size=(2, 600, 9)))
    with pytest.raises(ValueError, match=r"600 rows, more than `time`=512, .* or use `UDS`"):
        uds.Reference().examine(long)
    assert uds.Reference(time=600).examine(long)["sketch"].shape == (2, 1024)
    assert np.isfinite(uds.UDS(count=1, dim=16).examine(long)["sketch"]).all()


def test_nothing_is_printed_or_written(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policies: list[uds.Policy] = [small(), uds.UDS(count=2, dim=8)]
    for policy in policies:
        features = policy.examine(uds.Candidates(np.random.default_rng(0).normal(size=(4, 5, VOCAB))))
        policy.choose(None, features)
    assert capfd.readouterr() == ("", "")
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1.0}, "`alpha` must be a number of at least 0, got -1.0"),
        ({"alpha": float("nan")}, "`alpha` must be"),
        ({"keep": 0.5}, "`keep`"),
        ({"memory": 0}, "`memory` must be a whole number of at least 1"),
        ({"time": 0}, "`time` must be a whole number of at least 1"),
        ({"rank": (3, 0)}, r"`rank\[1\]` must be a whole number of at least 1"),
        ({"signs": (np.ones(3), np.ones(VOCAB))}, r"`signs\[0\]` must be 12 numbers -1 or 1"),
        ({"signs": (np.zeros(TIME), np.ones(VOCAB))}, r"`signs\[0\]` must be 12 numbers -1 or 1"),
        ({"indices": (np.zeros(3, int), np.zeros(9, int))}, r"`indices\[1\]` must be 10 whole numbers, as `rank` says"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signs": (np.ones(TIME), np.ones(VOCAB + 1))}, r"`signs\[1\]` must be 40 numbers -1 or 1"),
        ({"indices": (np.arange(3), np.full(10, VOCAB))}, r"`indices\[1\]` must lie in \[0, 40\), got 40 to 40"),
    ],
)
def test_signs_and_indices_must_fit_the_vocabulary(options, words):
    with pytest.raises(ValueError, match=words):
        small(**options).examine(uds.Candidates(np.zeros((1, 2, VOCAB))))


def test_a_head_keeps_its_side_of_the_projection():
    head = uds.Head(pools.WEIGHT)
    for _ in range(2):
        small(**draws(0)).examine(uds.Candidates(head(np.zeros((1, 2, pools.WIDTH)))))
    assert len(head._memo) == 2  # the factor, and one side


def test_examine_compiles_under_jax():
    jax = pytest.importorskip("jax")
    head = uds.Head(jax.numpy.asarray(pools.WEIGHT.astype(np.float32)))
    hidden = jax.numpy.asarray(pools.samples(0)[0].astype(np.float32))

    def examine(hidden):
        return dict(small().examine(uds.Candidates(head(hidden))))

    compiled, eager = jax.jit(examine)(hidden), examine(hidden)
    for name in eager:
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-3, atol=1e-3)
