"""Budgets and top-k: ties, missing scores, empty samples, groups."""

import array_api_strict
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from indices import listed

import uds_core as uds

scores_lists = st.lists(st.sampled_from([0.0, 1.0, 2.5, -3.0, np.inf, -np.inf, np.nan]), max_size=9)


def pick(backend, scores, length=None, groups=None, **budget):
    length = np.ones(len(scores)) if length is None else length
    got = uds.top_k(
        backend.array(scores, "float32"),
        backend.array(length, "float32"),
        budget=uds.Budget(**budget),
        groups=None if groups is None else backend.array(groups, "int32"),
    )
    return listed(backend, got)


@given(scores=scores_lists, count=st.integers(1, 12), data=st.data())
def test_best_first_then_empty_then_unknown(backend, scores, count, data):
    length = data.draw(st.lists(st.integers(0, 2), min_size=len(scores), max_size=len(scores)))
    assert pick(backend, scores, length, count=count) == reference.best_first(scores, length)[:count]


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(0, 9), count=st.integers(1, 9))
def test_permuting_the_batch_permutes_the_answer(backend, seed, batch, count):
    rng = np.random.default_rng(seed)
    scores, order = rng.permutation(batch) * 1.0, rng.permutation(batch)
    assert [order[i] for i in pick(backend, scores[order], count=count)] == pick(backend, scores, count=count)


def test_ties_go_to_the_lower_index(backend):
    assert pick(backend, [1.0, 2.0, 2.0, 1.0, 2.0], count=4) == [1, 2, 4, 0]


def test_ties_go_to_the_lower_index_in_a_large_pool(backend):
    """Sorts that are not stable are stable on few numbers."""
    scores = np.arange(400) % 3
    assert pick(backend, scores, length=np.arange(400) % 2, count=400) == reference.best_first(
        scores, np.arange(400) % 2
    )


def test_more_than_there_are_is_all(backend):
    assert pick(backend, [1.0, 2.0], count=5) == [1, 0]


@given(batch=st.integers(1, 64), keep=st.floats(0.01, 1))
def test_share_is_rounded_half_up_and_never_nothing(batch, keep):
    assert uds.Budget(keep=keep).size(batch) == reference.kept(batch, keep)
    assert uds.Budget().size(batch) == uds.Budget(keep=1.0).size(batch) == batch


def test_each_group_keeps_its_own_best_and_all_come_best_first(backend):
    scores, groups = [1.0, 9.0, 8.0, 2.0, 5.0, 3.0], [0, 1, 1, 0, 0, 1]
    assert pick(backend, scores, groups=groups, count=1) == [1, 4]
    assert pick(backend, scores, groups=groups, keep=2 / 3) == [1, 2, 4, 3]
    assert pick(backend, scores, groups=[7] * 6, count=2) == pick(backend, scores, count=2)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"keep": 0.0}, r"`keep` must be a fraction in \(0, 1\], got 0.0; for a number of samples use `count`"),
        ({"keep": 2}, "`keep` must be a fraction"),
        ({"count": 0}, "`count` must be a whole number of at least 1, got 0"),
        ({"count": 1.5}, "^`count` must be a whole number of at least 1, got 1.5; for a fraction use `keep`$"),
        ({"count": 2.0}, "`count` must be a whole number"),
        ({"keep": 0.5, "count": 1}, "give one of `keep`, `count`, `tokens` and `processed`, got keep=0.5, count=1"),
        ({"tokens": 0}, "`tokens` must be a whole number of at least 1"),
        ({"processed": 0}, "`processed` must be a whole number of at least 1"),
        ({"processed": 5, "tokens": 5}, "give one of"),
    ],
)
def test_impossible_budgets(budget, words):
    with pytest.raises(ValueError, match=words):
        uds.Budget(**budget)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="`scores` and `length`"):
        uds.top_k(np.ones(3), np.ones(2), budget=uds.Budget(count=1))
    three, budget, groups = np.ones(3), uds.Budget(count=1), np.ones(2)
    for choose in (
        lambda: uds.top_k(three, three, budget=budget, groups=groups),
        lambda: uds.gumbel_top_k(three, three, budget=budget, temperature=1.0, seed=(0, 0), groups=groups),
        lambda: uds.greedy(three, np.ones((3, 2)), three, budget=budget, radius=1.0, groups=groups),
    ):
        with pytest.raises(ValueError, match=r"^`groups` must have shape \(3,\), got \(2,\)$"):
            choose()


def test_devices_must_not_be_mixed():
    other = array_api_strict.ones(3, device=array_api_strict.Device("device1"))
    with pytest.raises(ValueError, match=r"`length` is on .*device1.* but `scores` on "):
        uds.top_k(array_api_strict.ones(3), other, budget=uds.Budget())


def test_libraries_must_not_be_mixed():
    ours, other, budget = np.ones(3), array_api_strict.ones(3), uds.Budget(count=1)
    for scores, length in ((ours, other), (other, ours)):
        with pytest.raises(TypeError, match="Multiple namespaces"):
            uds.top_k(scores, length, budget=budget)
        with pytest.raises(TypeError, match="Multiple namespaces"):
            uds.gumbel_top_k(scores, length, budget=budget, temperature=1.0, seed=(0, 0))
    for i in range(3):
        arrays = [ours, ours[:, None], ours]
        arrays[i] = array_api_strict.asarray(arrays[i])
        with pytest.raises(TypeError, match="Multiple namespaces"):
            uds.greedy(*arrays, budget=budget, radius=1.0)


# --- a budget of tokens ----------------------------------------------------------------------------------------------


@given(data=st.data(), tokens=st.integers(1, 30))
def test_tokens_are_spent_in_score_order_and_what_does_not_fit_is_skipped(backend, data, tokens):
    batch = data.draw(st.integers(1, 8))
    length = data.draw(st.lists(st.integers(0, 9), min_size=batch, max_size=batch))
    scores = np.random.default_rng(batch).permutation(batch) * 1.0
    expected, left = [], tokens
    for i in reference.best_first(scores, length):
        if 0 < length[i] <= left or not expected:
            expected.append(i)
            left -= length[i]
    assert pick(backend, scores, length, tokens=tokens) == expected


def test_what_tokens_are_left_over_buys_no_broken_and_no_empty_sample(backend):
    assert pick(backend, [5.0, 4.0, np.nan], [8, 8, 2], tokens=10) == [0]
    assert pick(backend, [5.0, 4.0, 3.0], [8, 0, 0], tokens=8) == [0]
    assert pick(backend, [np.nan, 4.0], [3, 0], tokens=8) == [1]


def test_each_group_has_its_own_tokens(backend):
    assert pick(backend, [4.0, 3.0, 2.0, 1.0], [5, 5, 9, 1], groups=[0, 0, 1, 1], tokens=6) == [0, 2]
    assert pick(backend, [4.0, 3.0, 2.0, 1.0], [5, 1, 5, 1], groups=[0, 0, 1, 1], tokens=6) == [0, 1, 2, 3]


# --- greedy ----------------------------------------------------------------------------------------------------------


def greedy_oracle(scores, sketches, length, count, radius):
    picked = []
    while len(picked) < count:
        lowered = [
            s * min([1.0] + [np.linalg.norm(sketches[i] - sketches[j]) / radius for j in picked])
            for i, s in enumerate(scores)
        ]
        picked.append(next(i for i in reference.best_first(lowered, length) if i not in picked))
    return picked


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), radius=st.floats(0.5, 5))
def test_greedy_lowers_what_is_near_to_the_picked(backend, seed, count, radius):
    rng = np.random.default_rng(seed)
    scores, sketches = rng.uniform(1, 2, size=6), rng.normal(size=(6, 3))
    got = uds.greedy(
        backend.array(scores, "float32"),
        backend.array(sketches, "float32"),
        backend.array(np.ones(6), "float32"),
        budget=uds.Budget(count=count),
        radius=radius,
    )
    assert listed(backend, got) == greedy_oracle(scores, sketches, np.ones(6), count, radius)


@pytest.mark.parametrize("block", [1, 4, 6])
def test_greedy_does_not_depend_on_blocks(backend, monkeypatch, block):
    monkeypatch.setattr("uds_core.choice._BLOCK_ROWS", block)
    rng = np.random.default_rng(0)
    scores, sketches = rng.uniform(1, 2, size=6), rng.normal(size=(6, 3))
    given = backend.array(scores, "float32"), backend.array(sketches, "float32"), backend.array(np.ones(6), "float32")
    got = uds.greedy(*given, budget=uds.Budget(count=5), radius=3.0)
    assert listed(backend, got) == greedy_oracle(scores, sketches, np.ones(6), 5, 3.0)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8))
def test_without_a_radius_greedy_lowers_copies_alone(backend, seed, count):
    """The limit of the formula for a radius that goes to zero."""
    rng = np.random.default_rng(seed)
    scores, sketches = rng.uniform(1, 2, size=8), rng.normal(size=(4, 3))[rng.integers(0, 4, size=8)]
    arguments = [backend.array(x, "float32") for x in (scores, sketches, np.ones(8))]
    got = uds.greedy(*arguments, budget=uds.Budget(count=count), radius=0.0)
    assert listed(backend, got) == greedy_oracle(scores, sketches, np.ones(8), count, 1e-9)


def test_unsound_sketches_spoil_nothing(backend):
    scores = backend.array([1.0, 3.0, 2.0], "float32")
    sketches = np.zeros((3, 2))
    sketches[1] = np.nan
    arguments = scores, backend.array(sketches, "float32"), backend.array(np.ones(3), "float32")
    for radius in (0.0, 1.0):
        got = uds.greedy(*arguments, budget=uds.Budget(count=3), radius=radius)
        assert backend.numpy(got).tolist() == [1, 2, 0]


def test_greedy_fills_every_group(backend):
    got = uds.greedy(
        backend.array([4.0, 3.0, 2.0, 1.0], "float32"),
        backend.array([[0.0], [0.1], [0.0], [5.0]], "float32"),
        backend.array(np.ones(4), "float32"),
        budget=uds.Budget(count=1),
        radius=1.0,
        groups=backend.array([0, 0, 1, 1], "int32"),
    )
    assert backend.numpy(got).tolist() == [0, 3]
