"""Baselines: all, random, longest and shortest samples."""

import numpy as np
import reference
from pools import BATCH, picks, samples

import uds_core as uds


def test_full_keeps_everything_in_order(backend):
    assert picks(uds.Full(), backend, None, samples(0))[0] == list(range(BATCH))


def test_longest_keeps_the_most_rows_with_loss(backend):
    pool = samples(0)
    assert picks(uds.Longest(count=3), backend, None, pool)[0] == reference.best_first(pool.length, pool.length)[:3]


def test_shortest_keeps_the_fewest_rows_with_loss_but_some(backend):
    pool = samples(0, time=9)
    pool.labels[2] = -100
    length = pool.length
    indices, selection, _ = picks(uds.Shortest(keep=1.0), backend, None, pool)
    assert indices == reference.best_first(-length, length)
    assert indices[-1] == 2
    assert backend.numpy(selection.scores).tolist() == (-length).tolist()


def test_random_depends_on_seed_and_step_alone(backend):
    policy = uds.Random(count=2, seed=5)
    state, drawn = None, []
    for step in range(4):
        indices, _, state = picks(policy, backend, state, samples(0))
        expected = np.random.default_rng([5, 7, step, 0]).random(BATCH, dtype=np.float32)
        assert indices == np.argsort(-expected)[:2].tolist()
        drawn.append(tuple(indices))
    assert len(set(drawn)) > 1
    assert state == (4,)


def test_random_keeps_each_sample_equally_often():
    policy, state, counts = uds.Random(count=2, seed=0), None, np.zeros(BATCH)
    features = {"length": np.ones(BATCH, np.float32)}
    for _ in range(3000):
        selection, state = policy.choose(state, features)
        counts[selection.indices] += 1
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 20.5  # 0.999 quantile at 5 degrees of freedom


def test_a_budget_of_rows_skips_what_does_not_fit(backend):
    pool = samples(0, time=9)
    length = pool.length
    for policy, scores in (
        (uds.Longest(tokens=9), length),
        (uds.Shortest(tokens=9), -length),
        (uds.Random(tokens=9, seed=5), np.random.default_rng([5, 7, 0, 0]).random(BATCH, dtype=np.float32)),
    ):
        expected, left = [], 9
        for index in reference.best_first(scores, length):
            if not expected or 0 < length[index] <= left:
                expected.append(index)
                left -= length[index]
        assert picks(policy, backend, None, pool)[0] == expected
