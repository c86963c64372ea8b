"""The ring of chosen sketches, and distances to it."""

from collections import deque
from itertools import pairwise

import array_api_strict
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import uds_core as uds
from uds_core._array import accumulation_dtype, device
from uds_core.memory import distances, finite_points, pushed
from uds_core.policies._scored import is_storable, with_chosen


@given(capacity=st.integers(1, 7), pushes=st.lists(st.integers(0, 9), max_size=12))
def test_holds_what_a_deque_holds(backend, capacity, pushes):
    memory = uds.Memory.empty(capacity, 2, like=backend.array(np.zeros(1), "float32"))
    model, number = deque(maxlen=capacity), 0
    for n in pushes:
        rows = np.arange(number, number + n)[:, None] * np.ones((1, 2))
        number += n
        model.extend(rows.tolist())
        memory = memory.push(backend.array(rows, "float32"))
        assert memory.size == len(model) <= capacity
        assert sorted(backend.numpy(memory.filled).tolist()) == sorted(model)


class RingAgainstDeque(RuleBasedStateMachine):
    """Any history of pushes, saves and older copies: the ring holds what a deque of the same length holds."""

    def __init__(self):
        super().__init__()
        self.memory = uds.Memory.empty(4, 1, like=np.zeros(1, np.float32))
        self.model, self.number = deque(maxlen=4), 0
        self.kept = []

    @rule(n=st.integers(0, 9))
    def push(self, n):
        rows = np.arange(self.number, self.number + n, dtype=np.float32)
        self.number += n
        self.memory = self.memory.push(rows[:, None])
        self.model.extend(rows.tolist())

    @rule()
    def keep_a_copy(self):
        self.kept.append((self.memory, sorted(self.model)))

    @rule()
    def save_and_load(self):
        empty = uds.Memory.empty(4, 1, like=np.zeros(1, np.float32))
        self.memory = uds.restore(empty, uds.flatten(self.memory))

    @invariant()
    def holds_the_same(self):
        for memory, expected in [*self.kept, (self.memory, sorted(self.model))]:
            assert sorted(memory.filled[:, 0].tolist()) == expected
            assert memory.size == len(expected)


TestRingAgainstDeque = RingAgainstDeque.TestCase


@given(pushes=st.lists(st.integers(0, 9), max_size=8), seed=st.integers(0, 99))
def test_a_reservoir_is_the_same_in_any_portions_on_any_library(backend, pushes, seed):
    rows = np.arange(sum(pushes), dtype=float)[:, None]
    whole = uds.Reservoir.empty(4, 1, like=np.zeros(1, np.float32), seed=seed).push(rows.astype(np.float32))
    parts = uds.Reservoir.empty(4, 1, like=backend.array(np.zeros(1), "float32"), seed=seed)
    for n in pushes:
        before = parts
        parts = parts.push(backend.array(rows[parts.seen : parts.seen + n].reshape(-1, 1), "float32"))
        assert before.seen + n == parts.seen
    assert backend.numpy(parts.filled).tolist() == whole.filled.tolist()
    assert parts.size == min(4, len(rows))


def test_a_reservoir_keeps_every_past_item_with_equal_probability():
    items, capacity, counts = 20, 5, np.zeros(20)
    rows = np.arange(items, dtype=np.float32)[:, None]
    for seed in range(2000):
        kept = uds.Reservoir.empty(capacity, 1, like=rows, seed=seed).push(rows).filled[:, 0]
        assert len(set(kept.tolist())) == capacity
        counts[kept.astype(int)] += 1
    expected = 2000 * capacity / items
    # each count is binomial with p = 1/4, and they sum to a constant: chi-square after dividing by 1 - p
    assert ((counts - expected) ** 2 / expected).sum() / (1 - capacity / items) * (items - 1) / items < 43.8


def test_a_reservoir_is_algorithm_r_with_places_drawn_from_seed_and_number():
    rows = np.arange(30, dtype=np.float32)[:, None]
    expected = list(range(4))
    for number in range(4, 30):
        place = np.random.default_rng([3, 6, number, 0]).integers(number + 1)
        if place < 4:
            expected[place] = number
    assert uds.Reservoir.empty(4, 1, like=rows, seed=3).push(rows).filled[:, 0].tolist() == expected
    assert uds.Reservoir.empty(4, 1, like=rows).seed == 0


DAMAGED = "counts {} rows of 5, which cannot be: the file is damaged"


@pytest.mark.parametrize("counts", [(-1, 0), (6, 0), (5, 5), (5, -1), (0, 5)])
def test_a_ring_that_counts_what_it_cannot_have_is_refused(counts):
    empty = uds.Memory.empty(5, 2, like=np.zeros(1))
    with pytest.raises(ValueError, match=DAMAGED.format(counts[0])):
        uds.restore(empty, uds.flatten(empty._replace(size=counts[0], cursor=counts[1])))
    whole = empty._replace(size=5, cursor=4)
    assert uds.restore(empty, uds.flatten(whole))[1:] == whole[1:]


@pytest.mark.parametrize("counts", [(-1, -1), (6, 6), (5, 4), (3, 9), (0, 1)])
def test_a_reservoir_that_counts_what_it_cannot_have_is_refused(counts):
    empty = uds.Reservoir.empty(5, 2, like=np.zeros(1), seed=7)
    with pytest.raises(ValueError, match=DAMAGED.format(counts[0])):
        uds.restore(empty, uds.flatten(empty._replace(size=counts[0], seen=counts[1])))
    for size, seen in ((0, 0), (5, 5), (5, 99)):
        assert uds.restore(empty, uds.flatten(empty._replace(size=size, seen=seen)))[1:] == (size, seen, 7)
    with pytest.raises(ValueError, match="reservoir was filled with `seed`=8, this policy has 7"):
        uds.restore(empty, uds.flatten(empty._replace(seed=8)))


def test_push_leaves_the_old_memory_as_it_is(backend):
    before = uds.Memory.empty(3, 2, like=backend.array(np.zeros(1), "float32"))
    after = before.push(backend.array(np.ones((2, 2)), "float32"))
    assert before.size == 0
    np.testing.assert_array_equal(backend.numpy(before.rows), np.zeros((3, 2)))
    np.testing.assert_array_equal(backend.numpy(after.filled), np.ones((2, 2)))


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(0, 4), rows=st.integers(0, 5), dim=st.integers(0, 6))
def test_diversity_is_the_mean_distance(backend, seed, batch, rows, dim):
    rng = np.random.default_rng(seed)
    z, q = rng.normal(size=(batch, dim)), rng.normal(size=(rows, dim))
    got = uds.diversity(backend.array(z, "float32"), backend.array(q, "float32"))
    np.testing.assert_allclose(backend.numpy(got), reference.mean_distance(z, q), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("rows", [1, 5, 20])
def test_other_distances(backend, rows):
    rng = np.random.default_rng(rows)
    z, q = rng.normal(size=(3, 6)), rng.normal(size=(rows, 6))
    apart = np.linalg.norm(z[:, None] - q[None], axis=2)
    x, y = backend.array(z, "float32"), backend.array(q, "float32")
    nearest = uds.diversity(x, y, distance="nearest", neighbours=4)
    np.testing.assert_allclose(backend.numpy(nearest), np.sort(apart, axis=1)[:, :4].mean(axis=1), rtol=1e-4)
    weights = np.exp(-apart / (0.2 * apart.mean(axis=1, keepdims=True)))
    soft = uds.diversity(x, y, distance="softmin", temperature=0.2)
    np.testing.assert_allclose(backend.numpy(soft), (weights * apart).sum(axis=1) / weights.sum(axis=1), rtol=1e-4)


def test_soft_minimum_lies_between_the_least_and_the_mean_and_scales(backend):
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(4, 6)), rng.normal(size=(9, 6))
    apart = np.linalg.norm(z[:, None] - q[None], axis=2)
    for factor in (1.0, 1000.0):
        soft = uds.diversity(
            backend.array(factor * z, "float32"), backend.array(factor * q, "float32"), distance="softmin"
        )
        assert (backend.numpy(soft) >= factor * apart.min(axis=1) * (1 - 1e-4)).all()
        assert (backend.numpy(soft) <= factor * apart.mean(axis=1)).all()
    same = uds.diversity(backend.array(z[:1], "float32"), backend.array(z[:1], "float32"), distance="softmin")
    assert float(backend.numpy(same)[0]) == 0


def test_a_large_memory_is_walked_in_blocks_and_gives_the_same():
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(3, 4)), rng.normal(size=(20_000, 4))
    np.testing.assert_allclose(uds.diversity(z, q), reference.mean_distance(z, q), rtol=1e-9)


def test_a_memory_of_65536_rows_takes_little_more_than_a_block():
    import tracemalloc

    z, q = np.ones((4, 256), np.float32), np.zeros((65_536, 256), np.float32)
    q[:, 0] = np.arange(65_536)
    tracemalloc.start()
    uds.diversity(z, q)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * q.nbytes  # all of it in float64 would take twice its size, and its square as much again


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-1e3, 1e3))
def test_shifting_everything_changes_no_distance(backend, seed, shift):
    rng = np.random.default_rng(seed)
    z, q = rng.normal(size=(3, 8)), rng.normal(size=(5, 8))
    got = uds.diversity(backend.array(z + shift, "float32"), backend.array(q + shift, "float32"))
    np.testing.assert_allclose(backend.numpy(got), reference.mean_distance(z, q), rtol=2e-3)


def test_tight_clusters_far_from_the_origin_keep_their_distances(backend):
    rng = np.random.default_rng(0)
    centre = 100 * rng.normal(size=1024)
    z, q = centre + 0.01 * rng.normal(size=(4, 1024)), centre + 0.01 * rng.normal(size=(32, 1024))
    z, q = z.astype(np.float32), q.astype(np.float32)
    got = backend.numpy(uds.diversity(backend.array(z), backend.array(q)))
    np.testing.assert_allclose(got, reference.mean_distance(z.astype(float), q.astype(float)), rtol=1e-4)


def test_only_what_is_known_and_finite_is_remembered_in_the_order_of_choice(backend):
    sketches = np.array([[1.0, 2.0], [np.nan, 0.0], [3.0, np.inf], [4.0, 5.0], [6.0, 7.0]])
    known = np.array([True, True, True, False, True])
    rows = backend.array(sketches, "float32")
    able = backend.numpy(is_storable(rows, backend.array(known)))
    got = with_chosen(uds.Memory.empty(3, 2, like=rows), rows, np.array([4, 1, 3, 0, 2], np.int32), able)
    assert backend.numpy(got.filled).tolist() == [[6, 7], [1, 2]]


@given(capacity=st.integers(1, 5), rounds=st.lists(st.lists(st.integers(0, 8), max_size=12), max_size=4))
@pytest.mark.parametrize("kind", [uds.Memory, uds.Reservoir])
def test_pushing_by_index_is_pushing_what_is_there(backend, kind, capacity, rounds):
    points = backend.array(np.arange(18.0).reshape(9, 2), "float32")
    memory = by_index = kind.empty(capacity, 2, like=points)
    for indices in rounds:
        here = np.array(indices, dtype=np.int32)
        memory = memory.push(backend.array(backend.numpy(points)[here], "float32"))
        by_index = pushed(by_index, points, backend.array(here))
        np.testing.assert_array_equal(backend.numpy(by_index.rows), backend.numpy(memory.rows))
        assert by_index[1:] == memory[1:]


@pytest.mark.parametrize("n", [0, 1, 3, 4, 10])
def test_finite_points_do_not_depend_on_blocks(backend, monkeypatch, n):
    points = np.arange(20.0).reshape(10, 2)[:n]
    points[1::3, 0], points[2::5, 1] = np.nan, np.inf
    monkeypatch.setattr("uds_core.memory._FINITE_ROWS", 3)
    found = backend.numpy(finite_points(backend.array(points)))
    assert found.tolist() == np.isfinite(points).all(axis=1).tolist()


def test_a_common_shift_makes_no_pair_near(monkeypatch):
    """What all have in common is taken out, so that the fast way is taken: only of real neighbours the other."""
    monkeypatch.setattr("uds_core.memory.direct_distances", None)
    z, q = np.random.default_rng(0).normal(size=(2, 9, 32))
    z, q = z + 1e6 * np.arange(32), q + 1e6 * np.arange(32)
    np.testing.assert_allclose(uds.diversity(z, q), reference.mean_distance(z, q), rtol=1e-6)


def test_a_soft_minimum_of_a_far_sketch_does_not_vanish_beside_a_near_one(backend):
    z, q = np.array([[0.0, 0.0], [1e4, 0.0]]), np.array([[0.0, 1.0], [0.0, 1.5]])
    apart = np.linalg.norm(z[:, None] - q[None], axis=2)
    soft = uds.diversity(backend.array(z, "float32"), backend.array(q, "float32"), distance="softmin", temperature=1e-3)
    np.testing.assert_allclose(backend.numpy(soft), apart.min(axis=1), rtol=1e-4)


def test_rows_of_another_device_are_refused():
    ones = array_api_strict.ones((3, 2))
    with pytest.raises(ValueError, match=r"`rows` is on .*device1.* but `points` on "):
        uds.diversity(ones, ones.to_device(array_api_strict.Device("device1")))


def test_a_memory_is_of_the_kind_of_the_sketches(backend):
    like = backend.array(np.ones(1), "float32")
    for memory in (uds.Memory.empty(3, 2, like=like), uds.Reservoir.empty(3, 2, like=like)):
        assert (memory.rows.dtype, device(memory.rows)) == (like.dtype, device(like))


def test_the_defaults_are_eight_neighbours_and_a_tenth_of_the_mean():
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(3, 6)), rng.normal(size=(20, 6))
    nearest = uds.diversity(z, q, distance="nearest", neighbours=8)
    np.testing.assert_array_equal(uds.diversity(z, q, distance="nearest"), nearest)
    soft = uds.diversity(z, q, distance="softmin", temperature=0.1)
    np.testing.assert_array_equal(uds.diversity(z, q, distance="softmin"), soft)


@pytest.mark.parametrize("rows", [0, 3])
def test_diversity_is_of_the_kind_of_the_sketches(backend, rows):
    z, q = backend.array(np.ones((5, 2)), "float32"), backend.array(np.ones((rows, 2)), "float32")
    got = uds.diversity(z, q)
    assert (got.dtype, tuple(got.shape), device(got)) == (z.dtype, (5,), device(z))
    apart = distances(z, q)
    assert (apart.dtype, tuple(apart.shape), device(apart)) == (accumulation_dtype(z), (5, rows), device(z))


def two_clusters(rng, n, dim=256):
    """Two tight clusters very far apart, in float32: every second row belongs to the same."""
    centres = 1000 * rng.normal(size=(2, dim))
    return (centres[np.arange(n) % 2] + 0.1 * rng.normal(size=(n, dim))).astype(np.float32)


@pytest.mark.parametrize("numbers", [2**20, 700, 1])  # at a time: all, a few pairs, one pair
def test_two_tight_clusters_far_apart_keep_their_distances(backend, monkeypatch, numbers):
    monkeypatch.setattr("uds_core.memory._PAIR_NUMBERS", numbers)
    rows = two_clusters(np.random.default_rng(0), 19)
    z, q = rows[:6], rows[6:]
    true = np.linalg.norm(z[:, None].astype(float) - q[None].astype(float), axis=2)
    assert true.max() > 5000 * true.min()
    np.testing.assert_allclose(backend.numpy(distances(backend.array(z), backend.array(q))), true, rtol=1e-5)
    nearest = uds.diversity(backend.array(z), backend.array(q), distance="nearest", neighbours=2)
    np.testing.assert_allclose(backend.numpy(nearest), np.sort(true, axis=1)[:, :2].mean(axis=1), rtol=1e-5)


def test_a_copy_is_no_distance_away_and_half_the_digits_are_left_where_nothing_is_taken_anew(backend):
    rng = np.random.default_rng(1)
    rows = two_clusters(rng, 12)
    got = backend.numpy(distances(backend.array(rows), backend.array(rows)))
    assert (np.diag(got) == 0).all()
    direction = rng.normal(size=256)
    for share in np.geomspace(1e-4, 1, 30):  # of the distance to the origin, around which the memory lies
        pair = np.stack([rows[0], rows[0] + share * np.linalg.norm(rows[0]) / 16 * direction]).astype(np.float32)
        memory = np.concatenate([pair[1:], -pair[1:]])
        true = np.linalg.norm(pair[:1].astype(float) - memory.astype(float), axis=1)
        got = distances(backend.array(pair[:1]), backend.array(memory))
        np.testing.assert_allclose(backend.numpy(got)[0], true, rtol=1e-3)


def test_distances_compile_under_jax():
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    compiled = jax.jit(uds.diversity)(jax.numpy.asarray(z), jax.numpy.asarray(q))
    np.testing.assert_allclose(compiled, reference.mean_distance(z, q), rtol=1e-4)


def test_an_empty_memory_is_no_distance_away(backend):
    z = backend.array(np.ones((3, 2)), "float32")
    np.testing.assert_array_equal(backend.numpy(uds.diversity(z, uds.Memory.empty(4, 2, like=z))), [0, 0, 0])


def test_a_sketch_that_is_not_finite_spoils_no_other(backend):
    z = backend.array(np.array([[np.nan, 0.0], [3.0, 4.0]]), "float32")
    got = backend.numpy(uds.diversity(z, backend.array(np.zeros((1, 2)), "float32")))
    assert np.isnan(got[0])
    assert got[1] == pytest.approx(5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uds.Memory.empty(0, 2, like=np.zeros(1)), "`capacity` must be a whole number of at least 1"),
        (lambda: uds.Memory.empty(3, 2, like=np.zeros(1)).push(np.ones((1, 3))), r"`rows` must have shape \(n, 2\)"),
        (lambda: uds.diversity(np.ones((2, 3)), np.ones((2, 4))), "do not fit"),
        (lambda: uds.diversity(np.ones((2, 3)), np.ones((2, 3, 1))), "do not fit"),
        (lambda: uds.diversity(np.ones((2, 3, 1)), np.ones((2, 3))), "do not fit"),
        (lambda: uds.diversity(*np.ones((2, 2, 3)), distance="max"), "`distance` must be"),  # type: ignore[arg-type]
        (
            lambda: uds.diversity(np.ones((2, 3)), np.ones((2, 3)), neighbours=0),
            "`neighbours` must be a whole number of at least 1",
        ),
        (lambda: uds.diversity(np.ones((2, 3)), np.ones((2, 3)), temperature=0.0), "`temperature` must be positive"),
        (lambda: uds.Reservoir.empty(3, 2, like=np.zeros(1)).push(np.ones((1, 3))), r"`rows` must have shape \(n, 2\)"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@given(number=st.integers(0, 2000), size=st.integers(1, 9))
def test_parts_of_a_pool_are_whole_blocks_in_order(number, size):
    parts = [uds.pool_part(number, rank=rank, size=size) for rank in range(size)]
    assert parts[0].start == 0
    assert parts[-1].stop == number
    assert all(one.stop == other.start for one, other in pairwise(parts))
    blocks = [-(-(part.stop - part.start) // 128) for part in parts]
    assert all(part.start % 128 == 0 or part.start == number for part in parts)
    assert max(blocks) - min(blocks) <= 1


@pytest.mark.parametrize("distance", ["nearest", "mean", "softmin"])
def test_distances_of_a_part_are_those_of_the_whole_to_the_bit(backend, distance):
    rng = np.random.default_rng(0)
    sketches, memory = (backend.array(rng.normal(size=(n, 64)), "float32") for n in (300, 1300))
    whole = backend.numpy(uds.diversity(sketches, memory, distance=distance))
    parts = [uds.pool_part(300, rank=rank, size=2) for rank in range(2)]
    divided = [backend.numpy(uds.diversity(sketches[part, ...], memory, distance=distance)) for part in parts]
    np.testing.assert_array_equal(np.concatenate(divided), whole)
