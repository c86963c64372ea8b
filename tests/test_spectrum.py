"""Nuclear and Frobenius norms: known spectra, laws, head against dense."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds

METHODS = ("svd", "eigh")
# eigh loses singular values below sqrt(n eps) of the largest, where eps is that of the accumulation
TOLERANCE = {("svd", "float64"): 1e-12, ("eigh", "float64"): 2e-7, ("svd", "float32"): 2e-5, ("eigh", "float32"): 2e-5}

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 12))


def with_spectrum(rng, time, vocab, values):
    """(time, vocab) with these singular values."""
    left = np.linalg.qr(rng.normal(size=(time, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(vocab, len(values))))[0]
    return left * values @ right.T


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds, rank=st.integers(1, 6), decay=st.floats(0, 3))
def test_prescribed_singular_values_are_summed(backend, method, seed, rank, decay):
    rng = np.random.default_rng(seed)
    values = np.arange(1, rank + 1) ** -decay * rng.uniform(1, 50)
    for time, vocab in ((7, 11), (11, 7)):
        logits = with_spectrum(rng, time, vocab, values)[None]
        for dtype in backend.floats:
            got = backend.numpy(uds.nuclear_norm(backend.array(logits, dtype), method=method))
            tolerance = TOLERANCE[method, dtype]
            if "float64" not in backend.floats and method == "eigh":
                tolerance = 1e-2  # the Gram matrix is in float32 there: documented loss sqrt(n eps)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, [values.sum()], rtol=tolerance)


@given(seed=seeds, size=sizes)
def test_between_frobenius_norm_and_root_of_rank_times_it(backend, seed, size):
    logits = np.random.default_rng(seed).normal(size=size)
    x = backend.array(logits, "float32")
    nuclear, frobenius = backend.numpy(uds.nuclear_norm(x, method="svd")), backend.numpy(uds.frobenius_norm(x))
    rank = min(size[1:])
    assert (frobenius <= nuclear * (1 + 1e-5)).all()
    assert (nuclear <= np.sqrt(rank) * frobenius * (1 + 1e-5)).all()


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds, size=sizes, factor=st.floats(-8, 8).map(lambda f: round(f, 3)))
def test_scales_with_the_size_of_the_logits(backend, method, seed, size, factor):
    logits = np.random.default_rng(seed).normal(size=size)
    norm = backend.numpy(uds.nuclear_norm(backend.array(logits), method=method))
    scaled = backend.numpy(uds.nuclear_norm(backend.array(factor * logits), method=method))
    np.testing.assert_allclose(scaled, abs(factor) * norm, rtol=2e-2 if backend.floats == ("float32",) else 1e-6)


@given(seed=seeds, size=sizes)
def test_orthogonal_maps_and_row_order_change_nothing(backend, seed, size):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size)
    left = np.linalg.qr(rng.normal(size=(size[1], size[1])))[0]
    right = np.linalg.qr(rng.normal(size=(size[2], size[2])))[0]
    for changed in (left @ logits @ right, logits[:, rng.permutation(size[1])]):
        for norm in (uds.nuclear_norm, uds.frobenius_norm):
            np.testing.assert_allclose(
                backend.numpy(norm(backend.array(changed, "float32"))),
                backend.numpy(norm(backend.array(logits, "float32"))),
                rtol=2e-3,
            )


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds, size=sizes, more=st.integers(1, 5))
def test_zero_rows_and_unscored_rows_change_nothing(backend, method, seed, size, more):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size)
    expected = backend.numpy(uds.nuclear_norm(backend.array(logits, "float32"), method=method))
    zeros = np.concatenate([logits, np.zeros((size[0], more, size[2]))], axis=1)
    junk = np.concatenate([np.full((size[0], more, size[2]), np.nan), logits], axis=1)
    mask = np.concatenate([np.zeros((size[0], more), bool), np.ones(size[:2], bool)], axis=1)
    by_zeros = uds.nuclear_norm(backend.array(zeros, "float32"), method=method)
    by_mask = uds.nuclear_norm(backend.array(junk, "float32"), mask=backend.array(mask), method=method)
    np.testing.assert_allclose(backend.numpy(by_zeros), expected, rtol=3e-3)
    np.testing.assert_allclose(backend.numpy(by_mask), expected, rtol=3e-3)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("deficient", [False, True])
@pytest.mark.parametrize(("time", "width"), [(9, 5), (5, 9)])
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 0.3)])
def test_head_equals_dense(backend, bias, scale, time, width, deficient, frozen):
    rng = np.random.default_rng(time)
    hidden, weight = rng.normal(size=(3, time, width)), rng.normal(size=(40, width))
    if deficient:
        weight[:, -1] = weight[:, 0] - 2 * weight[:, 1]
    b = rng.normal(size=40) if bias else np.zeros(40)
    logits, mask = scale * (hidden @ weight.T + b), rng.random((3, time)) < 0.7
    for dtype in backend.floats:
        head = uds.Head(
            backend.array(weight, dtype), backend.array(b, dtype) if bias else None, scale=scale, frozen=frozen
        )
        through = head(backend.array(hidden, dtype))
        exact = 1e-9 if dtype == "float64" else 1e-4
        for method in METHODS:
            got = backend.numpy(uds.nuclear_norm(through, mask=backend.array(mask), method=method))
            loss = 1e-2 if "float64" not in backend.floats else 1e-4  # of eigh, see above
            np.testing.assert_allclose(
                got, reference.nuclear_norm(logits, mask), rtol=exact if method == "svd" else loss
            )
        got = backend.numpy(uds.frobenius_norm(through, mask=backend.array(mask)))
        np.testing.assert_allclose(got, reference.frobenius_norm(logits, mask), rtol=exact)


def test_small_blocks_give_the_same(backend):
    logits = np.random.default_rng(0).normal(size=(3, 5, 50))
    x = backend.array(logits, "float32")
    head = uds.Head(backend.array(np.random.default_rng(1).normal(size=(30, 20)), "float32"), frozen=False)
    hidden = head(backend.array(logits[:, :, :20], "float32"))
    for source in (x, hidden):
        for norm in (uds.nuclear_norm, uds.frobenius_norm):
            whole, parts = norm(source), norm(source, block_bytes=1000)
            np.testing.assert_allclose(backend.numpy(parts), backend.numpy(whole), rtol=1e-5)


def test_auto_is_svd_for_float64_and_eigh_below():
    logits = np.random.default_rng(0).normal(size=(2, 5, 9))
    for dtype, method in (("float64", "svd"), ("float32", "eigh")):
        x = logits.astype(dtype)
        np.testing.assert_array_equal(uds.nuclear_norm(x), uds.nuclear_norm(x, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_nan_and_spoils_no_other(backend, method, bad):
    logits = np.random.default_rng(0).normal(size=(3, 4, 6))
    expected = reference.nuclear_norm(logits, np.ones((3, 4), bool))
    logits[1, 2, 3] = bad
    got = backend.numpy(uds.nuclear_norm(backend.array(logits, "float32"), method=method))
    assert np.isnan(got[1])
    np.testing.assert_allclose(got[[0, 2]], expected[[0, 2]], rtol=1e-2)


def test_no_scored_row_is_zero(backend):
    mask = backend.array(np.zeros((2, 3), bool))
    x = backend.array(np.ones((2, 3, 4)), "float32")
    for norm in (uds.nuclear_norm, uds.frobenius_norm):
        np.testing.assert_array_equal(backend.numpy(norm(x, mask=mask)), [0, 0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_floats_are_widened(dtype):
    torch = pytest.importorskip("torch")
    x = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    got = uds.nuclear_norm(x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, uds.nuclear_norm(x.float()))
    weight = x[0].mT
    torch.testing.assert_close(
        uds.nuclear_norm(uds.Head(weight)(x[:, :, :5])), uds.nuclear_norm(uds.Head(weight.float())(x[:, :, :5].float()))
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: uds.nuclear_norm(x[0]), "`logits` must have shape"),
        (lambda x: uds.nuclear_norm(x, method="fast"), "`method` must be"),
        (lambda x: uds.nuclear_norm(x, mask=np.ones((2, 4), bool)), r"`mask` must have shape .* = \(2, 3\)"),
        (lambda x: uds.nuclear_norm(x, block_bytes=0, method="eigh"), "`block_bytes` must be positive"),
    ],
)
def test_errors_name_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.ones((2, 3, 8)))


def test_integers_and_mixed_libraries_are_type_errors():
    with pytest.raises(TypeError, match="floating-point"):
        uds.nuclear_norm(np.ones((2, 3, 4), int))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError):
        uds.nuclear_norm(np.ones((2, 3, 4)), mask=torch.ones(2, 3, dtype=torch.bool))
