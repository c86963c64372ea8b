"""Per-sample cross-entropy and entropy: equal to the loop, from dense logits and through a head, in any blocks."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core.losses import loss_and_entropy
from uds_core.vocabulary import inclusion, sample, systematic

SMALL = [(0, 3, 2, 5), (2, 0, 2, 5), (2, 3, 0, 5), (1, 1, 1, 1)]  # batch, time, width, vocab


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(1, 1, 1, 2), (3, 4, 6, 30), (2, 6, 3, 17), *SMALL]),
    block=st.sampled_from([64, 700, 10_000]),
)
def test_equals_the_loop(backend, seed, size, block):
    batch, time, width, vocab = size
    rng = np.random.default_rng(seed)
    hidden, weight, bias = (
        rng.normal(size=(batch, time, width)),
        2 * rng.normal(size=(vocab, width)),
        rng.normal(size=vocab),
    )
    labels = rng.integers(-1, vocab, size=(batch, time))
    labels = np.where(labels < 0, -100, labels)
    logits = 0.7 * (hidden @ weight.T + bias)
    head = uds.Head(backend.array(weight, "float32"), backend.array(bias, "float32"), 0.7)
    for source in (backend.array(logits, "float32"), head(backend.array(hidden, "float32"))):
        got = backend.numpy(uds.cross_entropy(source, backend.array(labels), block_bytes=block))
        np.testing.assert_allclose(got, reference.cross_entropy(logits, labels), rtol=1e-4, atol=1e-5)
        total = backend.numpy(uds.cross_entropy(source, backend.array(labels), reduction="sum"))
        np.testing.assert_allclose(total, got * (labels != -100).sum(axis=1), rtol=1e-4, atol=1e-4)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(3, 4, 6, 30), (2, 6, 3, 17), *SMALL]),
    block=st.sampled_from([64, 700, 10_000]),
)
def test_entropy_equals_the_loop(backend, seed, size, block):
    batch, time, width, vocab = size
    rng = np.random.default_rng(seed)
    hidden, weight, mask = (
        rng.normal(size=(batch, time, width)),
        2 * rng.normal(size=(vocab, width)),
        rng.random((batch, time)) < 0.7,
    )
    expected, head = reference.entropy(hidden @ weight.T, mask), uds.Head(backend.array(weight, "float32"))
    for source in (backend.array(hidden @ weight.T, "float32"), head(backend.array(hidden, "float32"))):
        got = backend.numpy(uds.entropy(source, mask=backend.array(mask), block_bytes=block))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        total = backend.numpy(uds.entropy(source, mask=backend.array(mask), reduction="sum", block_bytes=block))
        np.testing.assert_allclose(total, expected * mask.sum(axis=1), rtol=1e-4, atol=1e-4)
        labels = backend.array(np.where(mask, 0, -100))
        _, beside = loss_and_entropy(source, labels, block_bytes=block)
        np.testing.assert_array_equal(backend.numpy(beside), got)


def test_loss_and_entropy_are_those_of_two_calls(backend):
    logits = backend.array(np.random.default_rng(0).normal(size=(3, 4, 9)), "float32")
    labels = np.array([[0, 1, -100, 3], [-100] * 4, [8, 8, 8, 8]])
    loss, unsure = loss_and_entropy(logits, backend.array(labels), mask=backend.array(np.arange(4) < [[3]] * 3))
    labels[:, 3] = -100
    np.testing.assert_array_equal(backend.numpy(loss), backend.numpy(uds.cross_entropy(logits, backend.array(labels))))
    expected = backend.numpy(uds.entropy(logits, mask=backend.array(labels != -100)))
    np.testing.assert_array_equal(backend.numpy(unsure), expected)


def test_entropy_of_nothing_of_all_and_of_one(backend):
    logits = backend.array([[[0.0] * 8], [[5000.0, *[0.0] * 7]], [[np.nan] * 8]], "float32")
    got = backend.numpy(uds.entropy(logits, block_bytes=16))
    np.testing.assert_allclose(got, [np.log(8), 0, np.nan], atol=1e-6)
    nothing = uds.entropy(logits, mask=backend.array(np.zeros((3, 1), bool)))
    assert backend.numpy(nothing).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="`reduction` must be"):
        uds.entropy(logits, reduction="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no vocabulary"):
        uds.entropy(backend.array(np.zeros((1, 2, 0)), "float32"))


def test_large_logits_do_not_overflow(backend):
    logits = backend.array([[[3000.0, -3000.0, 0.0]]], "float32")
    got = uds.cross_entropy(logits, backend.array([[2]]), block_bytes=8)
    assert float(backend.numpy(got)[0]) == pytest.approx(3000)


def test_words_that_are_masked_by_the_lowest_number_spoil_nothing(backend):
    """A whole block of them, before one that is not."""
    logits = np.random.default_rng(0).normal(size=(1, 2, 8)).astype(np.float32)
    logits[..., :4] = np.finfo(np.float32).min
    whole = backend.numpy(uds.entropy(backend.array(logits, "float32")))
    blocks = backend.numpy(uds.entropy(backend.array(logits, "float32"), block_bytes=8 * 2 * 4))
    np.testing.assert_allclose(blocks, whole, rtol=1e-5)


def test_the_mask_and_missing_labels_leave_rows_out(backend):
    logits = np.random.default_rng(0).normal(size=(1, 3, 4))
    logits[0, 1] = np.nan
    got = uds.cross_entropy(
        backend.array(logits, "float32"), backend.array([[1, 2, 3]]), mask=backend.array([[True, False, True]])
    )
    expected = reference.cross_entropy(logits[:, [0, 2]], [[1, 3]])
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=1e-5)
    nothing = uds.cross_entropy(backend.array(logits, "float32"), backend.array([[-100] * 3]))
    assert float(backend.numpy(nothing)[0]) == 0


def test_a_sample_that_is_not_finite_is_nan_and_spoils_no_other(backend):
    logits = np.random.default_rng(0).normal(size=(2, 3, 4))
    expected = reference.cross_entropy(logits, np.zeros((2, 3), int))
    logits[0, 0, 0] = np.nan
    got = backend.numpy(uds.cross_entropy(backend.array(logits, "float32"), backend.array(np.zeros((2, 3), int))))
    assert np.isnan(got[0])
    assert got[1] == pytest.approx(expected[1], rel=1e-5)


def test_a_target_outside_the_vocabulary_is_nan(backend):
    logits = backend.array(np.zeros((3, 2, 4)), "float32")
    got = backend.numpy(uds.cross_entropy(logits, backend.array([[0, 4], [-1, 0], [-100, 3]])))
    np.testing.assert_array_equal(np.isnan(got), [True, True, False])


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.zeros((1, 2), int), {}, r"`labels` must have shape \(batch, time\) = \(1, 3\)"),
        (np.zeros((1, 3), int), {"reduction": "none"}, "`reduction` must be"),
    ],
)
def test_errors_name_the_argument(labels, options, words):
    with pytest.raises(ValueError, match=words):
        uds.cross_entropy(np.zeros((1, 3, 4)), labels, **options)


def test_logits_beyond_the_range_of_exponentials(backend):
    """Of a head: far off from the start, and far above those of the first block."""
    hidden = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
    weight = np.zeros((1024, 2))
    weight[:, 0] = np.linspace(-100, -101, 1024)
    weight[900:, 1] = np.linspace(0, 300, 124)
    labels = np.array([[3, 1023, 900]])
    logits, head = hidden @ weight.T, uds.Head(backend.array(weight, "float32"))
    for rows in ([0, 1, 2], [1, 2], [0]):
        some = np.isin(np.arange(3), rows)[None]
        got = [
            backend.numpy(of)
            for of in loss_and_entropy(
                head(backend.array(hidden, "float32")), backend.array(np.where(some, labels, -100)), block_bytes=8 * 256
            )
        ]
        expected = reference.cross_entropy(logits, np.where(some, labels, -100)), reference.entropy(logits, some)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.5, 1.0]), biased=st.booleans())
def test_bfloat16_is_multiplied_as_the_model_multiplies_it(seed, scale, biased):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed % 2**31)
    hidden = torch.randn(2, 5, 16, generator=generator).bfloat16()
    weight = torch.randn(700, 16, generator=generator).bfloat16()
    bias = torch.randn(700, generator=generator).bfloat16() if biased else None
    labels = torch.randint(700, (2, 5), generator=generator)
    logits = (hidden @ weight.T).float() + (0.0 if bias is None else bias.float())
    expected = reference.cross_entropy((scale * logits).double().numpy(), labels.numpy())
    loss, unsure = loss_and_entropy(uds.Head(weight, bias, scale)(hidden), labels)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(uds.cross_entropy(uds.Head(weight, bias, scale)(hidden), labels), expected, atol=1e-2)
    everywhere = np.ones((2, 5), bool)
    np.testing.assert_allclose(
        unsure.numpy(), reference.entropy((scale * logits).double().numpy(), everywhere), atol=1e-3
    )


def test_a_loss_is_not_below_zero_by_rounding():
    torch = pytest.importorskip("torch")
    weight = torch.zeros(300, 2, dtype=torch.bfloat16)
    weight[:, 0] = torch.linspace(1, 30, 300)
    losses = [
        uds.cross_entropy(uds.Head(weight)(torch.full((1, 1, 2), s).bfloat16()), torch.tensor([[299]]))
        for s in (0.9, 1.0, 1.2)
    ]
    assert all(float(loss) >= 0 for loss in losses)


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(1, 40), vocab=st.integers(1, 40))
def test_a_sample_of_the_vocabulary_has_each_token_as_often_as_it_should(seed, number, vocab):
    """On a grid of starts, each token's frequency is its probability; so a weighted sum is unbiased."""
    probabilities = inclusion(vocab, number)
    assert probabilities.sum() == pytest.approx(min(number, vocab))
    draws = [systematic(probabilities, (i + 0.5) / 400) for i in range(400)]
    assert all(abs(len(draw) - min(number, vocab)) <= 1 for draw in draws)
    frequency = np.bincount(np.concatenate(draws), minlength=vocab) / 400
    np.testing.assert_allclose(frequency, probabilities, atol=1 / 400 + 1e-9)
    ids, weights = sample(vocab, number, seed)
    np.testing.assert_allclose(weights, 1 / probabilities[ids])


@given(seed=st.integers(0, 2**32 - 1), block=st.sampled_from([64, 10_000]))
def test_a_loss_by_some_of_the_vocabulary_equals_the_formula(backend, seed, block):
    rng = np.random.default_rng(seed)
    hidden, weight = rng.normal(size=(2, 4, 6)), 2 * rng.normal(size=(50, 6))
    labels = np.where(rng.random((2, 4)) < 0.3, -100, rng.integers(50, size=(2, 4)))
    ids, weights = sample(50, 12, 3)
    expected = reference.sampled_cross_entropy(hidden @ weight.T, labels, ids, weights)
    head = uds.Head(backend.array(weight, "float32"))
    for source in (backend.array(hidden @ weight.T, "float32"), head(backend.array(hidden, "float32"))):
        got = uds.cross_entropy(source, backend.array(labels), vocabulary=12, seed=3, block_bytes=block)
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=1e-4, atol=1e-5)
        whole = uds.cross_entropy(source, backend.array(labels), vocabulary=50)
        exact = reference.cross_entropy(hidden @ weight.T, labels)
        np.testing.assert_allclose(backend.numpy(whole), exact, rtol=1e-4, atol=1e-5)
