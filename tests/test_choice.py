"""Budgets and top-k: ties, missing scores, empty samples, groups."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds

scores_lists = st.lists(st.sampled_from([0.0, 1.0, 2.5, -3.0, np.inf, -np.inf, np.nan]), min_size=1, max_size=9)


def pick(backend, scores, length=None, groups=None, **budget):
    length = np.ones(len(scores)) if length is None else length
    got = uds.top_k(
        backend.array(scores, "float32"),
        backend.array(length, "float32"),
        budget=uds.Budget(**budget),
        groups=None if groups is None else backend.array(groups, "int32"),
    )
    assert str(got.dtype).rsplit(".", maxsplit=1)[-1] == "int32"
    return backend.numpy(got).tolist()


@given(scores=scores_lists, count=st.integers(1, 12), data=st.data())
def test_best_first_then_empty_then_unknown(backend, scores, count, data):
    length = data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores)))
    assert pick(backend, scores, length, count=count) == reference.best_first(scores, length)[:count]


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 9), count=st.integers(1, 9))
def test_permuting_the_batch_permutes_the_answer(backend, seed, batch, count):
    rng = np.random.default_rng(seed)
    scores, order = rng.permutation(batch) * 1.0, rng.permutation(batch)
    assert [order[i] for i in pick(backend, scores[order], count=count)] == pick(backend, scores, count=count)


def test_ties_go_to_the_lower_index(backend):
    assert pick(backend, [1.0, 2.0, 2.0, 1.0, 2.0], count=4) == [1, 2, 4, 0]


def test_more_than_there_are_is_all(backend):
    assert pick(backend, [1.0, 2.0], count=5) == [1, 0]


@given(batch=st.integers(1, 64), keep=st.floats(0.01, 1))
def test_share_is_rounded_half_up_and_never_nothing(batch, keep):
    assert uds.Budget(keep=keep).size(batch) == reference.kept(batch, keep)
    assert uds.Budget().size(batch) == batch


def test_each_group_keeps_its_own_best_and_all_come_best_first(backend):
    scores, groups = [1.0, 9.0, 8.0, 2.0, 5.0, 3.0], [0, 1, 1, 0, 0, 1]
    assert pick(backend, scores, groups=groups, count=1) == [1, 4]
    assert pick(backend, scores, groups=groups, keep=2 / 3) == [1, 2, 4, 3]
    assert pick(backend, scores, groups=[7] * 6, count=2) == pick(backend, scores, count=2)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"keep": 0.0}, r"`keep` must be a share in \(0, 1\], got 0.0; for a number of samples use `count`"),
        ({"keep": 2}, "`keep` must be a share"),
        ({"count": 0}, "`count` must be a whole number of at least 1, got 0"),
        ({"count": 1.5}, "`count` must be a whole number"),
        ({"keep": 0.5, "count": 1}, "`keep` or `count`, not both"),
    ],
)
def test_impossible_budgets(budget, words):
    with pytest.raises(ValueError, match=words):
        uds.Budget(**budget)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="`scores` and `length`"):
        uds.top_k(np.ones(3), np.ones(2), budget=uds.Budget(count=1))
    with pytest.raises(ValueError, match="`groups` must have shape"):
        uds.top_k(np.ones(3), np.ones(3), budget=uds.Budget(count=1), groups=np.ones(2))
