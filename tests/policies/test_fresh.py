"""Fresh: equal to the reference, near-duplicates last, and random where there are none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


def repeated(step):
    """Samples of which some are those of the step before, or of the same pool, with a little noise."""
    pool, before = pools.samples(step), pools.samples(step - 1 if step else 99)
    rng = np.random.default_rng(step)
    for place, (source, i) in enumerate(((before, 0), (before, 3), (pool, 5)), start=1):
        for part, other in zip(pool[:3], source[:3], strict=True):
            part[place] = other[i]
        pool.hidden[place] += 1e-3 * rng.normal(size=pool.hidden[place].shape)
    return pool


def test_twenty_steps_choose_as_the_oracle_does_also_through_a_saved_state(backend):
    policy = uds.Fresh(keep=0.5, memory=8, dim=16, seed=4)
    slow, state, copies = reference.Fresh(keep=0.5, threshold=0.5, memory=8, dim=16, seed=4), None, 0
    for step in range(20):
        pool = repeated(step)
        if step % 5 == 4:
            pool.labels[4] = -100  # nothing to score
        features = policy.examine(pools.candidates(backend, pool))
        if step == 10:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = slow.step(pool.logits, pool.scored)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-5)
        copies += backend.numpy(selection.parts["near_duplicate"]).sum()
    assert 20 < copies < 60  # some, not all


def test_without_copies_it_is_chance():
    fresh, random = uds.Fresh(count=3, dim=40, seed=5), uds.Random(count=3, seed=5)
    states: list[Any] = [None, None]
    for axes in np.split(np.eye(40), 5):
        one, states[0] = fresh.choose(states[0], {"sketch": axes, "length": np.ones(8)})
        other, states[1] = random.choose(states[1], {"length": np.ones(8)})
        np.testing.assert_array_equal(one.indices, other.indices)


def test_of_copies_one_is_kept_while_something_else_is_left(backend):
    sketch = np.repeat(np.eye(4), 2, axis=0)
    features = {"sketch": backend.array(sketch, "float32"), "length": backend.array(np.ones(8), "float32")}
    for seed in range(20):
        selection, state = uds.Fresh(count=4, memory=8, dim=4, seed=seed).choose(None, features)
        assert sorted(i // 2 for i in backend.numpy(selection.indices).tolist()) == [0, 1, 2, 3]
        again, _ = uds.Fresh(count=4, memory=8, dim=4, seed=seed).choose(state, features)
        assert (backend.numpy(again.scores) < 0).all()
        assert backend.numpy(again.indices).shape == (4,)  # what is asked for is kept, of copies too


def test_a_whole_data_set_may_be_one_pool(monkeypatch):
    """Blocks change nothing but the number of pairs that the usual distance is taken of."""
    rng = np.random.default_rng(0)
    sketch = np.concatenate([rng.normal(size=(30, 16)), np.repeat(rng.normal(size=(5, 16)), 4, axis=0)])
    features = {"sketch": sketch, "length": np.ones(50)}
    whole, _ = uds.Fresh(count=35, dim=16).choose(None, features)
    monkeypatch.setattr("uds_core.policies.fresh._BLOCK", 7)
    parts, _ = uds.Fresh(count=35, dim=16).choose(None, features)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    assert whole.parts["near_duplicate"].sum() == 15


@pytest.mark.parametrize("options", [{"seed": 1}, {"length": "none"}, {"sketch": "shifted"}, {"rows": "tokens"}])
def test_a_memory_of_other_sketches_is_refused(options):
    features = {"sketch": np.ones((2, 8)), "length": np.ones(2)}
    policy = uds.Fresh(keep=1.0, memory=4, dim=8)
    saved = uds.flatten(policy.choose(None, features)[1])
    assert uds.restore(replace(policy, threshold=0.1).init(features), saved).step == 1
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(replace(policy, **options).init(features), saved)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": -0.1}, "`threshold` must be a number of at least 0"),
        ({"memory": 0}, "`memory` must be a whole number"),
        ({"rows": "all"}, "`rows` must be one of"),
        ({"keep": 0.5, "count": 1}, "give one of"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.Fresh(**options)
