"""Sketches of n-grams: the same on every library, a matter of own tokens, and an unbiased Jaccard similarity."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core import ngrams

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=0, max_size=9)


def padded(samples, *, left=0, right=0):
    time = max(map(len, samples), default=0) + left + right
    ids, mask = np.full((len(samples), time), 7, np.int64), np.zeros((len(samples), time), bool)
    for row, own in enumerate(samples):
        ids[row, left : left + len(own)], mask[row, left : left + len(own)] = own, True
    return ids, mask


def sketch(backend, ids, mask, **options):
    return backend.numpy(uds.ngram_sketch(backend.array(ids), mask=backend.array(mask), **options))


@given(samples=st.lists(tokens, max_size=4), left=st.integers(0, 3), right=st.integers(0, 6), n=st.integers(1, 5))
def test_own_tokens_alone_decide(backend, samples, left, right, n):
    expected = [uds.ngram_sketch(np.asarray([own], np.int64).reshape(1, -1), n=n, dim=16)[0] for own in samples]
    got = sketch(backend, *padded(samples, left=left, right=right), n=n, dim=16)
    assert got.shape == (len(samples), 16)
    assert str(got.dtype) == "int32"
    np.testing.assert_array_equal(got, np.asarray(expected, np.int32).reshape(-1, 16))


@given(a=st.lists(st.integers(0, 3), max_size=8), b=st.lists(st.integers(0, 3), max_size=8), n=st.integers(1, 4))
def test_equal_sets_of_ngrams_have_equal_sketches(a, b, n):
    one, other = (uds.ngram_sketch(np.asarray([x], np.int64).reshape(1, -1), n=n, dim=64)[0] for x in (a, b))
    same = reference.ngrams(a, n) == reference.ngrams(b, n)
    assert bool((one == other).all()) is same


@pytest.mark.parametrize("changed", [0, 40, 200, 400])
def test_jaccard_is_unbiased(backend, changed):
    rng = np.random.default_rng(changed)
    a = rng.integers(0, 50, size=400)
    b = np.concatenate([a[: 400 - changed], rng.integers(0, 50, size=changed)])
    one, other = reference.ngrams(a, 4), reference.ngrams(b, 4)
    expected = len(one & other) / len(one | other)
    sketches = uds.ngram_sketch(backend.array(np.stack([a, b])), dim=2048, seed=changed)
    got = backend.numpy(uds.jaccard(sketches[:1, :], sketches[1:, :]))[0, 0]
    assert abs(got - expected) < 4 * (0.25 / 2048) ** 0.5


def test_a_sample_without_tokens_resembles_nothing(backend):
    empty = uds.ngram_sketch(backend.array(np.ones((2, 3), int)), mask=backend.array(np.zeros((2, 3), bool)), dim=8)
    assert (backend.numpy(empty) == 2**31 - 1).all()
    assert (backend.numpy(uds.jaccard(empty, empty)) == 0).all()


def test_blocks_change_nothing(monkeypatch):
    ids = np.random.default_rng(0).integers(0, 9, size=(4, 20))
    whole = uds.ngram_sketch(ids, dim=32)
    similar = uds.jaccard(whole, whole)
    monkeypatch.setattr(ngrams, "_BLOCK", 64)
    np.testing.assert_array_equal(uds.ngram_sketch(ids, dim=32), whole)
    np.testing.assert_array_equal(uds.jaccard(whole, whole), similar)


def test_other_seeds_hash_otherwise():
    ids = np.arange(12)[None, :]
    assert (uds.ngram_sketch(ids, seed=1) != uds.ngram_sketch(ids, seed=2)).mean() > 0.9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uds.ngram_sketch(np.zeros((1, 3))), "`token_ids` must be whole numbers"),
        (lambda: uds.ngram_sketch(np.zeros(3, int)), "`token_ids` must be whole numbers"),
        (lambda: uds.ngram_sketch(np.zeros((1, 3), int), n=0), "`n` must be a whole number"),
        (lambda: uds.ngram_sketch(np.zeros((1, 3), int), dim=0), "`dim` must be a whole number"),
        (lambda: uds.ngram_sketch(np.zeros((1, 3), int), mask=np.ones((1, 2), bool)), "`mask` must have shape"),
        (lambda: uds.jaccard(np.zeros((1, 3), np.int32), np.zeros((1, 2), np.int32)), "must be sketches"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_similarity_is_of_sketches_alone():
    with pytest.raises(ValueError, match="with the same `dim` of at least 1"):
        uds.jaccard(np.zeros((2, 0), np.int32), np.zeros((2, 0), np.int32))
    with pytest.raises(TypeError, match="must be results of `ngram_sketch`, whole numbers, got float64"):
        uds.jaccard(np.zeros((2, 3)), np.zeros((2, 3)))
