"""Nuclear and Frobenius norms: known spectra, laws, bounds, head against dense, memory."""

import functools
import tracemalloc

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core import spectrum
from uds_core._array import is_accelerator
from uds_core.estimators import _polar_steps

EXACT = ("svd", "eigh", "polar")
ALL = (*EXACT, "randomized", "frobenius")

seeds = st.integers(0, 2**32 - 1)
# few, because JAX compiles for each: square, wide, long, and so wide that it is made square first
SMALL = [(1, 1, 1), (2, 5, 1), (2, 1, 6), (0, 5, 6), (2, 0, 6), (2, 5, 0)]
sizes = st.sampled_from([*SMALL, (2, 5, 6), (3, 7, 11), (2, 11, 7), (2, 3, 40)])


def tolerance(backend, method, dtype, n):
    """What docs/pages/concepts/estimators.md promises, relative to the nuclear norm."""
    rounding = {"float64": 1e-12, "float32": 2e-6}[dtype]
    if method == "eigh":
        eps = np.finfo("float64" if "float64" in backend.floats else "float32").eps
        return rounding + n * 1.4 * n**0.25 * eps**0.5
    if method == "polar":
        rounding = max(rounding, 1e-8)  # in float64 too it stops where float32 does
        return rounding + n * 1e-7
    return rounding


def with_spectrum(rng, time, vocab, values):
    """(time, vocab) with these singular values."""
    left = np.linalg.qr(rng.normal(size=(time, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(vocab, len(values))))[0]
    return left * values @ right.T


def spectra(n, condition):
    """Singular values of this condition number: falling evenly, as a power, at once after the first or before the last.

    The last two are the worst for a method that loses the small ones.
    """
    power = np.arange(1, n + 1) ** -(np.log(condition) / np.log(n))
    return (
        np.geomspace(1, 1 / condition, n),
        power,
        np.r_[1, np.full(n - 1, 1 / condition)],
        np.r_[np.ones(n - 1), 1 / condition],
    )


@pytest.mark.parametrize("method", EXACT)
@given(
    seed=seeds,
    size=st.sampled_from([(7, 11), (11, 7), (5, 60)]),
    decades=st.floats(0, 8),
    factor=st.sampled_from([1.0, 1e-3, 3e4]),
)
def test_prescribed_singular_values_are_summed(backend, method, seed, size, decades, factor):
    rng = np.random.default_rng(seed)
    n = min(size)
    values = factor * np.array(spectra(n, 10**decades))
    logits = np.stack([with_spectrum(rng, size[0], size[1], row) for row in values])
    for dtype in backend.floats:
        got = backend.numpy(uds.nuclear_norm(backend.array(logits, dtype), method=method))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, values.sum(axis=1), rtol=tolerance(backend, method, dtype, n))


@given(seed=seeds, size=st.sampled_from([(7, 11), (11, 7), (5, 60)]), decades=st.floats(0, 8), rank=st.integers(1, 7))
def test_the_nuclear_norm_lies_between_its_bounds(backend, seed, size, decades, rank):
    rng = np.random.default_rng(seed)
    values = np.array(spectra(min(size), 10**decades))
    logits = np.stack([with_spectrum(rng, size[0], size[1], row) for row in values])
    for dtype in backend.floats:
        x = backend.array(logits, dtype)
        low, high = (backend.numpy(bound) for bound in uds.nuclear_bounds(x, rank=rank, seed=seed))
        rounding = {"float64": 1e-12, "float32": 2e-6}[dtype]
        assert (low <= values.sum(axis=1) * (1 + rounding)).all()
        assert (high >= values.sum(axis=1) * (1 - rounding)).all()
        np.testing.assert_array_equal(
            backend.numpy(uds.nuclear_norm(x, method="randomized", rank=rank, seed=seed)), low
        )
        if rank >= min(size):
            np.testing.assert_allclose(high, low, rtol=10 * rounding)


def test_the_lower_bound_holds_most_of_a_steep_spectrum_and_grows_with_rank(backend):
    values = np.arange(1, 31) ** -1.5
    x = backend.array(with_spectrum(np.random.default_rng(0), 30, 200, values)[None], "float32")
    low = [float(backend.numpy(uds.nuclear_bounds(x, rank=rank)[0])[0]) for rank in (2, 5, 10, 30)]
    best = [values[:rank].sum() for rank in (2, 5, 10, 30)]
    np.testing.assert_allclose(low, best, rtol=0.02)
    assert low == sorted(low)


@given(seed=seeds, size=sizes)
def test_between_frobenius_norm_and_root_of_rank_times_it(backend, seed, size):
    logits = np.random.default_rng(seed).normal(size=size)
    x = backend.array(logits, "float32")
    frobenius = backend.numpy(uds.frobenius_norm(x))
    np.testing.assert_array_equal(backend.numpy(uds.nuclear_norm(x, method="frobenius")), frobenius)
    for method in ("svd", "polar"):
        nuclear = backend.numpy(uds.nuclear_norm(x, method=method))
        assert (frobenius <= nuclear * (1 + 1e-5)).all()
        assert (nuclear <= np.sqrt(min(size[1:])) * frobenius * (1 + 1e-5)).all()


@pytest.mark.parametrize("method", ALL)
@given(seed=seeds, size=sizes, factor=st.sampled_from([-8.0, 0.0, 0.37, 1e-30, 1e30]))
def test_scales_with_the_size_of_the_logits(backend, method, seed, size, factor):
    """No square overflows or vanishes on the way."""
    logits = np.random.default_rng(seed).normal(size=size)
    for dtype in backend.floats:
        power = 6 if dtype == "float64" and abs(factor) not in (8.0, 0.37) else 1  # 1e-180, 1e180
        norm = backend.numpy(uds.nuclear_norm(backend.array(logits, dtype), method=method))
        scaled = backend.numpy(uds.nuclear_norm(backend.array(factor**power * logits, dtype), method=method))
        np.testing.assert_allclose(
            scaled,
            (abs(factor) ** power * norm.astype("float64")).astype(dtype),
            rtol=2e-3 if method == "eigh" else 1e-5,
        )


@given(seed=seeds, size=sizes)
def test_orthogonal_maps_and_row_order_change_nothing(backend, seed, size):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size)
    left = np.linalg.qr(rng.normal(size=(size[1], size[1])))[0]
    right = np.linalg.qr(rng.normal(size=(size[2], size[2])))[0]
    for changed in (left @ logits @ right, logits[:, rng.permutation(size[1])]):
        for norm in (uds.nuclear_norm, uds.frobenius_norm, functools.partial(uds.nuclear_norm, method="polar")):
            np.testing.assert_allclose(
                backend.numpy(norm(backend.array(changed, "float32"))),
                backend.numpy(norm(backend.array(logits, "float32"))),
                rtol=1e-5,
            )


@pytest.mark.parametrize("method", ALL)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy subtracts infinities
@given(
    seed=seeds,
    size=st.sampled_from([(2, 5, 1), (2, 1, 6), (2, 1, 1), (3, 7, 11), (2, 40, 1)]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    head=st.booleans(),
)
def test_a_matrix_that_is_not_finite_is_nan_and_spoils_no_other(backend, method, seed, size, bad, head):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size)
    expected = backend.numpy(uds.nuclear_norm(backend.array(logits, "float32"), method=method))
    logits[0, rng.integers(size[1]), rng.integers(size[2])] = bad
    given = backend.array(logits, "float32")
    weight = backend.array(np.eye(size[2]), "float32")
    got = backend.numpy(uds.nuclear_norm(uds.Head(weight)(given) if head else given, method=method))
    assert np.isnan(got[0])
    np.testing.assert_allclose(got[1:], expected[1:], rtol=1e-3)


@pytest.mark.parametrize("method", ALL)
@given(seed=seeds, size=st.sampled_from([(2, 5, 6), (3, 7, 11), (2, 3, 40), *SMALL]), more=st.sampled_from([1, 5]))
def test_zero_rows_and_unscored_rows_change_nothing(backend, method, seed, size, more):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size)
    norm = functools.partial(uds.nuclear_norm, method=method, rank=2)
    expected = backend.numpy(norm(backend.array(logits, "float32")))
    zeros = np.concatenate([logits, np.zeros((size[0], more, size[2]))], axis=1)
    junk = np.concatenate([np.full((size[0], more, size[2]), np.nan), logits], axis=1)
    mask = np.concatenate([np.zeros((size[0], more), bool), np.ones(size[:2], bool)], axis=1)
    by_zeros = norm(backend.array(zeros, "float32"))
    by_mask = norm(backend.array(junk, "float32"), mask=backend.array(mask))
    rtol = 3e-3 if method == "eigh" else 1e-5
    np.testing.assert_allclose(backend.numpy(by_zeros), expected, rtol=rtol)
    np.testing.assert_allclose(backend.numpy(by_mask), expected, rtol=rtol)


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
    expected = reference.nuclear_norm(logits, mask)
    for dtype in backend.floats:
        head = uds.Head(
            backend.array(weight, dtype), backend.array(b, dtype) if bias else None, scale=scale, frozen=frozen
        )
        through = head(backend.array(hidden, dtype))
        exact = 1e-9 if dtype == "float64" else 1e-4
        for method in EXACT:
            got = backend.numpy(uds.nuclear_norm(through, mask=backend.array(mask), method=method))
            np.testing.assert_allclose(got, expected, rtol=exact + tolerance(backend, method, dtype, 9))
        low, high = (backend.numpy(x) for x in uds.nuclear_bounds(through, mask=backend.array(mask), rank=3))
        assert (low <= expected * (1 + exact)).all()
        assert (high >= expected * (1 - exact)).all()
        got = backend.numpy(uds.frobenius_norm(through, mask=backend.array(mask)))
        np.testing.assert_allclose(got, reference.frobenius_norm(logits, mask), rtol=exact)


def test_a_large_common_row_of_the_head_is_taken_out_to_rounding(backend):
    """Its mean is over as many rows as the vocabulary has: a naive sum adds up float32's rounding."""
    rng = np.random.default_rng(0)
    weight = (10 * rng.normal(size=(1, 16)) + 1e-2 * rng.normal(size=(20_000, 16))).astype(np.float32)
    hidden = rng.normal(size=(2, 8, 16)).astype(np.float32)
    exact = weight.astype(float) - weight.astype(float).mean(axis=0)
    expected = [np.linalg.svd(h.astype(float) @ exact.T, compute_uv=False).sum() for h in hidden]
    head = uds.Head(backend.array(weight, "float32"))
    got = uds.nuclear_norm(head(backend.array(hidden, "float32")).centred("row"), method="svd")
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=1e-4)


@pytest.mark.parametrize("method", ALL)
def test_small_blocks_give_the_same(backend, method):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 50)) * np.array([1.0, 1e3, 0.0])[:, None, None]
    long = backend.array(logits.swapaxes(1, 2), "float32")
    walked = uds.Head(backend.array(rng.normal(size=(30, 20)), "float32"), frozen=False)
    few = uds.Head(backend.array(rng.normal(size=(4, 20)), "float32"), frozen=False)  # fewer tokens than rows
    hidden = backend.array(logits[:, :, :20], "float32")
    prepared = uds.Head(walked.weight)
    for source in (backend.array(logits, "float32"), long, walked(hidden), few(hidden), prepared(hidden)):
        norm = functools.partial(uds.nuclear_norm, source, method=method, rank=3)
        for block_bytes in (1, 1000):
            np.testing.assert_allclose(backend.numpy(norm(block_bytes=block_bytes)), backend.numpy(norm()), rtol=1e-5)


def test_auto_is_svd_for_float64_polar_where_eigen_solvers_are_poor_and_eigh_otherwise(backend, monkeypatch):
    logits = np.random.default_rng(0).normal(size=(2, 5, 9))

    def same(dtype, method):
        x = backend.array(logits, dtype)
        auto, named = uds.nuclear_norm(x), uds.nuclear_norm(x, method=method)
        np.testing.assert_array_equal(backend.numpy(auto), backend.numpy(named))

    wide = "float64" in backend.floats
    if wide:
        same("float64", "svd")
    if backend.device != "cuda":
        same("float32", "eigh" if wide else "polar")
    monkeypatch.setattr(spectrum, "is_accelerator", lambda _: True)
    same("float32", "polar")


def test_an_accelerator_is_told_by_its_device(backend):
    assert is_accelerator(backend.array(np.ones(2), "float32")) == (backend.device == "cuda")


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("route", ["dense", "head"])
def test_jits(method, route):
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    weight, hidden = (jax.numpy.asarray(rng.normal(size=size), dtype="float32") for size in ((40, 6), (2, 9, 6)))

    def norm(hidden):
        logits = hidden @ weight.T if route == "dense" else uds.Head(weight)(hidden)
        return uds.nuclear_norm(logits, method=method, rank=3)

    np.testing.assert_allclose(jax.jit(norm)(hidden), norm(hidden), rtol=2e-3 if method == "eigh" else 1e-5)
    assert jax.jit(lambda x: x * is_accelerator(x))(hidden).sum() == hidden.sum() * is_accelerator(hidden)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_nan_and_spoils_no_other(backend, method, bad):
    logits = np.random.default_rng(0).normal(size=(3, 4, 6))
    for shape in ((3, 4, 6), (3, 6, 4), (3, 1, 24)):
        sample = logits.reshape(shape)
        expected = backend.numpy(uds.nuclear_norm(backend.array(sample, "float32"), method=method))
        sample = sample.copy()
        sample[1, 0, 2] = bad
        got = backend.numpy(uds.nuclear_norm(backend.array(sample, "float32"), method=method))
        assert np.isnan(got[1])
        np.testing.assert_allclose(got[[0, 2]], expected[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_no_scored_row_is_zero(backend, method):
    mask = backend.array(np.zeros((2, 3), bool))
    for vocab in (4, 40):
        x = backend.array(np.ones((2, 3, vocab)), "float32")
        np.testing.assert_array_equal(backend.numpy(uds.nuclear_norm(x, mask=mask, method=method)), [0, 0])
        np.testing.assert_array_equal(backend.numpy(uds.nuclear_bounds(x, mask=mask)[1]), [0, 0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_floats_are_widened(dtype):
    torch = pytest.importorskip("torch")
    x = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    for method in ALL:
        got = uds.nuclear_norm(x, method=method)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, uds.nuclear_norm(x.float(), method=method))
    weight = x[0].mT
    torch.testing.assert_close(
        uds.nuclear_norm(uds.Head(weight)(x[:, :, :5])), uds.nuclear_norm(uds.Head(weight.float())(x[:, :, :5].float()))
    )


def extra_bytes(run):
    """Memory at the peak of `run` beyond what there was before, by NumPy's own account."""
    run()  # what is kept for later calls is not counted
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 64, 5000), (6, 5000, 64), (40, 32, 1000), (2, 200, 6000)])
def test_dense_logits_need_no_more_than_a_block_and_a_few_squares(method, dtype, shape):
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=shape).astype(dtype), rng.random(shape[:2]) < 0.8
    block, n = 2**20, min(shape[1:])
    squares = 7 * n * n
    if method == "randomized":
        squares = 8 * shape[1] * 8 + shape[2] * 8  # bases (time, rank), start (vocab, rank)
    assert logits.nbytes > 2 * (block + 8 * squares)
    extra = extra_bytes(lambda: uds.nuclear_norm(logits, mask=mask, method=method, rank=8, block_bytes=block))
    assert extra <= block + 8 * squares


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("kind", ["dense", "frozen", "trained"])
def test_long_sequences_never_make_a_matrix_of_time_by_time(method, kind):
    """The walk is on the width side: N = 8,192 here in place of 32,768, and 32 in place of 1,024."""
    time, width = 8192, 32
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(1, time, width)).astype("float32")
    weight = rng.normal(size=(200, width)).astype("float32")

    def run():
        source = hidden if kind == "dense" else uds.Head(weight, frozen=kind == "frozen")(hidden)
        return uds.nuclear_norm(source, method=method, block_bytes=2**18)

    assert extra_bytes(run) < 10 * hidden.nbytes + 2**18 < time * time / 5  # not a bit or two for each pair of rows
    exact = np.linalg.svd(hidden if kind == "dense" else hidden @ weight.T, compute_uv=False).sum()
    if method != "frobenius":  # `randomized` too: its rank is the width
        np.testing.assert_allclose(run(), [exact], rtol=1e-4)


def test_polar_steps_bring_all_values_above_a_millionth_to_one():
    """Below it, at most 0.07e-6 of each is lost. No large value comes near 0 on the way, where rounding would rule."""
    start = np.geomspace(1e-12, 1.001, 20_000)
    values = start
    for a, b, c in _polar_steps(1e-6):
        values = a * values + b * values**3 + c * values**5
        assert values.min() > 0
        assert values[start >= 0.01].min() > 0.02
        assert values.max() < 2
    np.testing.assert_allclose(values[start >= 1e-6], 1, rtol=1e-8)
    assert (start * (1 - values)).max() < 0.07e-6


@given(seed=seeds)
def test_polar_in_float32_is_as_good_as_the_singular_values(seed):
    """Many small matrices at once: some singular value lies wherever a polynomial of the iteration is at its worst."""
    rng = np.random.default_rng(seed)
    logits = np.stack([with_spectrum(rng, 4, 4, np.r_[1, rng.random(3)]) for _ in range(300)])
    exact = np.linalg.svd(logits, compute_uv=False).sum(axis=1)
    for factor in (logits, np.concatenate([logits, np.zeros((300, 4, 60))], axis=2)):
        np.testing.assert_allclose(uds.nuclear_norm(factor.astype("float32"), method="polar"), exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "fast"}, "`method` must be one of 'auto', 'svd', .* got 'fast'"),
        ({"method": "randomized", "rank": 0}, "`rank` must be a whole number of at least 1, got 0"),
        ({"mask": np.ones((2, 4), bool)}, r"`mask` must have shape .* = \(2, 3\)"),
        *(
            ({"block_bytes": 0, "method": method}, "`block_bytes` must be a whole number of at least 1")
            for method in ALL
        ),
    ],
)
def test_errors_name_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        uds.nuclear_norm(np.ones((2, 3, 8)), **options)
    with pytest.raises(ValueError, match="`logits` must have shape"):
        uds.nuclear_norm(np.ones((2, 3)), method="svd")


def test_integers_and_mixed_libraries_are_type_errors():
    with pytest.raises(TypeError, match="`logits` must hold floating-point"):
        uds.nuclear_norm(np.ones((2, 3, 4), int))
    with pytest.raises(TypeError, match="`weight` must hold floating-point"):
        uds.Head(np.ones((3, 4), int))
    with pytest.raises(TypeError, match="`hidden` must hold floating-point"):
        uds.Head(np.ones((3, 4)))(np.ones((1, 2, 4), int))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError):
        uds.nuclear_norm(np.ones((2, 3, 4)), mask=torch.ones(2, 3, dtype=torch.bool))
