"""Policies by the entropy of predictions, and by its corners with the loss."""

import numpy as np
import pools
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds


@pytest.mark.parametrize("rows", ["labels", "tokens"])
def test_entropy_keeps_the_least_sure(backend, rows):
    pool = pools.samples(0)
    scored = pool.scored if rows == "labels" else pool.mask
    expected = reference.entropy(pool.logits, scored)
    indices, selection, _ = pools.picks(uds.Entropy(count=3, rows=rows), backend, None, pool)
    assert indices == reference.best_first(expected, scored.sum(axis=1))[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), expected, rtol=1e-4)


def test_entropy_reads_no_target(backend):
    pool = pools.samples(0)
    other = pool._replace(labels=np.where(pool.labels == -100, -100, 0))
    got = [backend.numpy(pools.picks(uds.Entropy(keep=1.0), backend, None, p)[1].scores) for p in (pool, other)]
    np.testing.assert_array_equal(*got)


@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 20), count=st.integers(1, 20), rounding=st.booleans())
def test_quadrants_are_two_opposite_corners_just_large_enough(seed, batch, count, rounding):
    rng = np.random.default_rng(seed)
    loss, unsure = rng.normal(size=(2, batch)).round(0 if rounding else 9)
    features = {"loss": loss, "entropy": unsure, "length": np.ones(batch)}
    selection, _ = uds.Quadrants(count=count).choose(None, features)
    assert selection.indices.shape == (min(count, batch),)
    # whoever is in the smallest corners with K samples or more may be chosen, and nobody else
    assert set(selection.indices.tolist()) <= reference.corners(loss, unsure, min(count, batch))


def test_quadrants_keep_what_is_surely_wrong_and_what_is_unsurely_right():
    """Of nine samples in a square, the two corners off the diagonal; noise (both high) and the known (both low) go."""
    loss, unsure = (part.ravel().astype(np.float32) for part in np.meshgrid([0, 1, 2], [0, 1, 2]))
    features = {"loss": loss, "entropy": unsure, "length": np.ones(9, np.float32)}
    selection, _ = uds.Quadrants(count=2).choose(None, features)
    assert {(loss[i], unsure[i]) for i in selection.indices} == {(2, 0), (0, 2)}
    corner = selection.scores.reshape(3, 3)
    assert corner[0, 0] == corner[2, 2] < corner[1, 1] < corner[0, 2] == corner[2, 0]
    assert list(selection.parts) == ["loss", "entropy", "corner"]


def test_empty_and_broken_samples_move_no_percentile(backend):
    pool = pools.samples(0)
    _, alone, _ = pools.picks(uds.Quadrants(keep=1.0), backend, None, pool)
    more = pools.Pool(*(np.concatenate([a, b[:2]]) for a, b in zip(pool, pools.samples(1), strict=True)))
    more.labels[-2] = -100
    more.hidden[-1, 1] = np.nan
    _, beside, _ = pools.picks(uds.Quadrants(keep=0.5), backend, None, more)
    np.testing.assert_allclose(backend.numpy(beside.scores)[: pools.BATCH], backend.numpy(alone.scores), atol=1e-6)
