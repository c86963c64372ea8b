"""Factors of tall matrices, and heads of random rows: laws, and errors against their bounds."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core import factors

seeds = st.integers(0, 2**32 - 1)
FACTORS = {"qr": factors.by_qr, "gram": factors.by_gram}


def matrix(seed, rows, columns, *, condition=1.0, common=0.0):
    """(rows, columns) of this condition number, and a common row of this size, relative to the largest value."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, columns)))[0] for n in (rows, columns))
    return left * np.geomspace(1, 1 / condition, columns) @ right.T + common * rng.normal(size=columns) / columns**0.5


def factor(backend, x, by, *, block=7, dtype="float64"):
    x = backend.array(x, dtype)
    return backend.numpy(
        FACTORS[by](x[start : min(start + block, x.shape[0]), ...] for start in range(0, x.shape[0], block))
    )


@pytest.mark.parametrize("by", FACTORS)
@given(
    seed=seeds, size=st.sampled_from([(1, 1), (40, 1), (40, 5), (3, 5), (300, 140)]), common=st.sampled_from([0, 10])
)
def test_a_factor_has_the_gram_matrix(backend, by, seed, size, common):
    x = matrix(seed, max(size), min(size), common=common)[: size[0]]
    dtype = backend.floats[0]
    made = factor(backend, x, by, dtype=dtype)
    assert made.shape == (x.shape[1], x.shape[1])
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(made @ made.T, x.T @ x, atol=40 * eps * max(np.linalg.norm(x) ** 2, 1e-30))


@given(seed=seeds, condition=st.sampled_from([1.0, 10.0, 100.0]), common=st.sampled_from([0.0, 1.0, 30.0]))
def test_by_gram_is_as_near_as_documented(seed, condition, common):
    """Half of eps cond^2 in each singular value, cond that of the matrix less its common row."""
    rng = np.random.default_rng(seed)
    x = matrix(seed, 3000, 24, condition=condition, common=common).astype(np.float32)
    hidden = rng.normal(size=(2, 9, 24)).astype(np.float32)
    made = factors.by_gram(x[start : start + 1000] for start in range(0, 3000, 1000))
    exact = [np.linalg.svd(h.astype(float) @ x.astype(float).T, compute_uv=False) for h in hidden]
    found = [np.linalg.svd(h.astype(float) @ made.astype(float), compute_uv=False) for h in hidden]
    bound = 0.5 * np.finfo(np.float32).eps * condition**2 + 4 * np.finfo(np.float32).eps * max(1.0, common) * condition
    np.testing.assert_allclose(found, exact, rtol=bound)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy subtracts infinities
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_factor_of_a_matrix_that_is_not_finite_is_nan(backend, bad):
    x = np.random.default_rng(0).normal(size=(20, 4))
    x[13, 2] = bad
    assert np.isnan(factor(backend, x, "gram", dtype=backend.floats[0])).all()


@pytest.mark.parametrize("centre", ["none", "row"])
def test_a_head_by_gram_gives_the_numbers_of_one_by_qr(backend, centre):
    rng = np.random.default_rng(0)
    weight, bias, hidden = rng.normal(size=(200, 6)), rng.normal(size=200), rng.normal(size=(3, 8, 6))
    for dtype in backend.floats:
        weights = backend.array(weight, dtype), backend.array(bias, dtype)
        found, expected = (
            uds.nuclear_norm(
                uds.Head(*weights, 0.5, factor_by=by)(backend.array(hidden, dtype)).centred(centre), method="svd"
            )
            for by in ("gram", "qr")
        )
        np.testing.assert_allclose(backend.numpy(found), backend.numpy(expected), rtol=1e-5)


def test_an_unknown_way_is_an_error():
    with pytest.raises(ValueError, match="`factor_by` must be one of 'qr', 'gram'"):
        uds.Head(np.ones((3, 2)), factor_by="lu")  # type: ignore[arg-type]


# vocabulary sampling


@given(seed=seeds, number=st.sampled_from([1, 3, 11]), head=st.booleans())
def test_sampling_is_unbiased_in_the_gram_matrix(seed, number, head):
    """The mean over draws is within its standard error, which theory gives, of the exact matrix."""
    rng = np.random.default_rng(seed)
    weight, bias, hidden = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=(1, 4, 3))
    source = uds.Head(weight, bias, 0.7)(hidden)
    values = 0.7 * (hidden @ weight.T + bias)[0]
    logits = source if head else uds.Candidates(values[None]).logits
    # `compact` of sampled logits has the entries as columns, or as many columns with the same Gram matrix
    draws = [logits.sampled(number, seed=draw).compact()[0] for draw in range(300)]
    made = np.stack([draw @ draw.T for draw in draws])
    error = reference.sampled_gram_error(values, number) / len(made) ** 0.5
    assert (np.abs(made.mean(axis=0) - values @ values.T) <= 5.5 * error + 1e-9).all()


def test_the_spread_of_sampled_gram_matrices_is_as_documented():
    values = np.random.default_rng(0).normal(size=(3, 40))
    logits = uds.Candidates(values[None]).logits
    draws = [logits.sampled(10, seed=draw).compact()[0] for draw in range(4000)]
    spread = np.std([draw @ draw.T for draw in draws], axis=0)
    np.testing.assert_allclose(spread, reference.sampled_gram_error(values, 10), rtol=0.05)


@given(seed=seeds)
def test_the_sampled_nuclear_norm_is_low_on_average_and_exact_with_all_entries(seed):
    """It is concave in the Gram matrix."""
    rng = np.random.default_rng(seed)
    hidden, head = rng.normal(size=(2, 5, 4)), uds.Head(rng.normal(size=(60, 4)))
    exact = uds.nuclear_norm(head(hidden))
    for entries in (60, 61, 1152):
        np.testing.assert_allclose(uds.nuclear_norm(head(hidden), method="sampled", entries=entries), exact, rtol=1e-9)
    found = [uds.nuclear_norm(head(hidden), method="sampled", entries=20, seed=draw) for draw in range(200)]
    assert (np.mean(found, axis=0) < exact + 3 * np.std(found, axis=0) / 200**0.5).all()


@pytest.mark.parametrize("centre", ["none", "row"])
def test_sampled_norms_and_sketches_are_those_of_the_drawn_entries(backend, centre):
    rng = np.random.default_rng(0)
    weight, hidden, mask = rng.normal(size=(50, 4)), rng.normal(size=(3, 6, 4)), rng.random((3, 6)) < 0.7
    logits = hidden @ weight.T
    logits = logits - logits.mean(axis=2, keepdims=True) if centre == "row" else logits
    entries = reference.vocabulary_entries(50, 20, 3)
    drawn = logits[:, :, entries] * (50 / 20) ** 0.5
    dtype = backend.floats[0]
    rtol = 1e-9 if dtype == "float64" else 1e-4
    head = uds.Head(backend.array(weight, dtype))
    for source in (head(backend.array(hidden, dtype)), backend.array(hidden @ weight.T, dtype)):
        view = uds.Candidates(source).logits.centred(centre)
        norms = uds.nuclear_norm(view, mask=backend.array(mask), method="sampled", entries=20, seed=3)
        np.testing.assert_allclose(backend.numpy(norms), reference.nuclear_norm(drawn, mask), rtol=rtol)
        sketch = uds.PairedSketch(time=8, vocab=20, dim=16)
        found = backend.numpy(sketch(view.sampled(20, seed=3), mask=backend.array(mask)))
        expected = reference.paired_sketch(drawn, mask, dim=16, seed=0)
        np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


def test_uds_takes_all_its_numbers_from_the_drawn_entries_and_refuses_other_sketches():
    rng = np.random.default_rng(0)
    head = uds.Head(rng.normal(size=(1500, 4)))
    candidates = uds.Candidates(head(rng.normal(size=(6, 5, 4))))
    policy = uds.UDS(keep=0.5, dim=16, method="sampled", frobenius=0.5)
    features = policy.examine(candidates)
    drawn = uds.Candidates(candidates.logits.sampled(1152))
    expected = uds.UDS(keep=0.5, dim=16, frobenius=0.5).examine(drawn)
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], values, rtol=1e-9)
    assert head._memo == {}  # nothing of the whole head was derived
    _, state = policy.choose(None, features)
    with pytest.raises(ValueError, match="other options"):
        uds.restore(uds.UDS(keep=0.5, dim=16, frobenius=0.5).init(features), uds.flatten(state))


@pytest.mark.parametrize("wrong", [0, -1, 2.0, None])
def test_a_wrong_number_of_entries_is_an_error(wrong):
    for logits in (np.ones((1, 2, 3)), uds.Head(np.ones((3, 2)))(np.ones((1, 2, 2)))):
        with pytest.raises((TypeError, ValueError), match="`entries` must be a whole number"):
            uds.nuclear_norm(logits, method="sampled", entries=wrong)
