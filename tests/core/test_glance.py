"""Glances: equal to the loop over tokens, and a matter of each sample's own tokens alone."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core._random import signs

VOCAB, WIDTH = 11, 6


def sample(rng, length, prompt):
    """Token ids and shifted targets of one sample that answers from position `prompt` on."""
    ids = rng.integers(0, VOCAB, size=length)
    targets = np.full(length, -100)
    targets[max(prompt - 1, 0) : max(length - 1, 0)] = ids[max(prompt, 1) : length]
    return ids, targets


def padded(samples, *, left=False, extra=0):
    time = max((len(ids) for ids, _ in samples), default=0) + extra
    ids, targets = np.full((len(samples), time), 3), np.full((len(samples), time), -100)
    mask = np.zeros((len(samples), time), bool)
    for row, (own, labels) in enumerate(samples):
        part = slice(time - len(own), time) if left else slice(0, len(own))
        ids[row, part], targets[row, part], mask[row, part] = own, labels, True
    return ids, targets, mask


def looked_at(backend, ids, targets, table, **options):
    mask = backend.array(options.pop("mask"))
    found = uds.glance(
        backend.array(ids), backend.array(targets), backend.array(table, "float32"), mask=mask, **options
    )
    return backend.numpy(found)


sizes = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 13)), min_size=0, max_size=5)


@given(sizes=sizes, seed=st.integers(0, 2**32 - 1), dim=st.sampled_from([1, 4, WIDTH, 40]))
def test_equals_the_loop(backend, sizes, seed, dim):
    rng = np.random.default_rng(seed)
    ids, targets, mask = padded([sample(rng, *size) for size in sizes])
    table = rng.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    drawn = [signs(5, 10, 0, (WIDTH, d)) if d < WIDTH else None for d in (dim, max(1, dim // 4))]
    got = looked_at(backend, ids, targets, table, mask=mask, dim=dim, seed=5)
    assert got.shape == (len(sizes), uds.glance_width(WIDTH, dim=dim))
    if len(sizes):
        np.testing.assert_allclose(got, reference.glance(ids, targets, table, mask, drawn), rtol=1e-4, atol=1e-5)


@given(sizes=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 13)), min_size=2, max_size=5))
def test_padding_and_batch_mates_change_nothing(backend, sizes):
    rng = np.random.default_rng(len(sizes))
    samples, table = [sample(rng, *size) for size in sizes], rng.normal(size=(VOCAB, WIDTH))
    (ids, targets, mask), (wide, wide_targets, right) = padded(samples), padded(samples, left=True, extra=3)
    together = looked_at(backend, ids, targets, table, mask=mask)
    np.testing.assert_allclose(
        looked_at(backend, wide, wide_targets, table, mask=right), together, rtol=1e-5, atol=1e-6
    )
    alone = [looked_at(backend, *padded([one])[:2], table, mask=padded([one])[2]) for one in samples]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-5, atol=1e-6)


def test_ids_without_an_embedding_count_as_tokens(backend):
    ids, targets = np.array([[1, -200, VOCAB, 2, 4]]), np.array([[-100, -100, -100, 4, -100]])
    table = np.arange(VOCAB * WIDTH, dtype=float).reshape(VOCAB, WIDTH)
    got = looked_at(backend, ids, targets, table, mask=np.ones((1, 5), bool))[0]
    np.testing.assert_allclose(got[WIDTH : 2 * WIDTH], (table[1] + table[2]) / 2, rtol=1e-5)
    np.testing.assert_allclose(got[-4:], [np.log(2), np.log(5), 1.0, 0.0], rtol=1e-5)


def test_a_prompt_of_its_own_and_targets_of_another_length(backend):
    """As of an encoder-decoder model, whose prompt is all that the encoder reads."""
    ids, targets = np.array([[1, 2, 3]]), np.array([[3, 4, 5, -100]])
    table = np.eye(VOCAB)
    got = looked_at(backend, ids, targets, table, mask=np.ones((1, 3), bool))[0]
    np.testing.assert_allclose(got[VOCAB : 2 * VOCAB], np.isin(np.arange(VOCAB), [1, 2, 3]) / 3, rtol=1e-5)
    np.testing.assert_allclose(got[-1], 1 / 3, rtol=1e-5)
    given = looked_at(
        backend, ids, targets, table, mask=np.ones((1, 3), bool), prompt=backend.array([[True, False, False]])
    )[0]
    np.testing.assert_allclose(given[VOCAB : 2 * VOCAB], np.arange(VOCAB) == 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.zeros((1, 3)), np.zeros((1, 3), int), np.zeros((4, 2))), {}, "`token_ids` must be whole numbers"),
        ((np.zeros((1, 3), int), np.zeros(3, int), np.zeros((4, 2))), {}, "`targets` must be whole numbers"),
        ((np.zeros((1, 3), int), np.zeros((2, 3), int), np.zeros((4, 2))), {}, "`targets` must have a row for each"),
        ((np.zeros((1, 3), int), np.zeros((1, 3), int), np.zeros(4)), {}, r"`embeddings` must be a table"),
        ((np.zeros((1, 3), int), np.zeros((1, 3), int), np.zeros((4, 2))), {"dim": 0}, "`dim` must be a whole number"),
        (
            (np.zeros((1, 3), int), np.zeros((1, 3), int), np.zeros((4, 2))),
            {"prompt": np.ones((1, 2), bool)},
            "`prompt` must have shape",
        ),
    ],
)
def test_errors_name_the_argument(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        uds.glance(*arguments, **options)


def test_half_floats_are_widened():
    torch = pytest.importorskip("torch")
    ids, table = torch.tensor([[1, 2, 3]]), torch.randn(5, 4).bfloat16()
    got = uds.glance(ids, torch.tensor([[-100, 3, -100]]), table)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got[0, :4], table[3].float())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy multiplies infinities by 0
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_spoils_only_samples_that_have_its_token(backend, bad):
    rng = np.random.default_rng(0)
    ids, targets, mask = padded([sample(rng, 5, 2), sample(rng, 2, 1), sample(rng, 0, 0), sample(rng, 6, 3)])
    ids[ids == 0] = 1
    targets[targets == 0] = 1
    table = rng.normal(size=(VOCAB, WIDTH))
    expected = looked_at(backend, ids, targets, table, mask=mask)
    table[0] = bad
    ids[~mask] = 0  # padding has this token
    np.testing.assert_array_equal(looked_at(backend, ids, targets, table, mask=mask), expected)
    ids[3, 0] = 0
    spoilt = looked_at(backend, ids, targets, table, mask=mask)
    assert not np.isfinite(spoilt[3]).all()
    np.testing.assert_array_equal(spoilt[:3], expected[:3])


def test_token_ids_may_be_unsigned(backend):
    rng = np.random.default_rng(0)
    ids, targets, mask = padded([sample(rng, 5, 2), sample(rng, 3, 1)])
    table = rng.normal(size=(VOCAB, WIDTH))
    expected = looked_at(backend, ids, targets, table, mask=mask)
    np.testing.assert_array_equal(looked_at(backend, ids.astype(np.uint8), targets, table, mask=mask), expected)


def test_an_embedding_table_of_whole_numbers_is_refused():
    with pytest.raises(TypeError, match="`embeddings` must hold floating-point numbers"):
        uds.glance(np.zeros((1, 3), int), np.zeros((1, 3), int), np.zeros((4, 2), int))
