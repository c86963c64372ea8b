"""The sketches: equal to their written-out matrices, linear, isometric over seeds, blind to padding."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core.sketch import shifted_sum

VOCAB = 50
seeds = st.integers(0, 2**31 - 1)
KINDS = ("fourier", "paired", "shifted")


def recipe(kind, *, vocab=VOCAB, seed=0, time=16, dim=12, rank=(3, 8)):
    if kind == "paired":
        return uds.PairedSketch(time=time, vocab=vocab, dim=dim, seed=seed)
    if kind == "shifted":
        return uds.ShiftedSketch(time=time, vocab=vocab, dim=dim, seed=seed)
    return uds.FourierSketch(time=time, vocab=vocab, rank=rank, seed=seed)


def expected(sketch, logits, mask):
    if isinstance(sketch, uds.PairedSketch):
        return reference.paired_sketch(logits, mask, dim=sketch.dim, seed=sketch.seed)
    if isinstance(sketch, uds.ShiftedSketch):
        return reference.shifted_sketch(logits, mask, dim=sketch.dim, seed=sketch.seed)
    return reference.fourier_sketch(logits, mask, time=sketch.time, rank=sketch.rank, seed=sketch.seed)


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=seeds,
    size=st.sampled_from(
        [(1, 1, 2), (1, 1, 1), (0, 3, 4), (2, 0, 4), (2, 9, VOCAB), (3, 6, 25)]
    ),  # few: JAX compiles for each shape
    dim=st.sampled_from([1, 7, 60]),
    rank=st.sampled_from([(1, 1), (3, 8), (20, 60)]),
)
def test_equals_the_written_out_matrices(backend, kind, seed, size, dim, rank):
    rng = np.random.default_rng(seed)
    logits, mask = rng.normal(size=size), rng.random(size[:2]) < 0.6
    sketch = recipe(kind, vocab=size[2], seed=seed, time=4, dim=dim, rank=rank)
    got = backend.numpy(sketch(backend.array(logits, "float32"), mask=backend.array(mask)))
    assert got.shape == (size[0], sketch.dim)
    wanted = np.reshape(expected(sketch, logits, mask), got.shape)  # of no samples, the loop has no width
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.sqrt(size[1] * size[2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [7, 24, 25, VOCAB])
@pytest.mark.parametrize(("bias", "scale"), [(False, 1.0), (True, 0.3)])
def test_head_equals_dense(backend, kind, vocab, bias, scale):
    rng = np.random.default_rng(0)
    hidden, weight, b = rng.normal(size=(3, 6, 5)), rng.normal(size=(vocab, 5)), rng.normal(size=vocab) * bias
    logits, mask = scale * (hidden @ weight.T + b), backend.array(rng.random((3, 6)) < 0.7)
    sketch = recipe(kind, vocab=vocab)
    head = uds.Head(backend.array(weight, "float32"), backend.array(b, "float32") if bias else None, scale=scale)
    through = backend.numpy(sketch(head(backend.array(hidden, "float32")), mask=mask))
    dense = backend.numpy(sketch(backend.array(logits, "float32"), mask=mask))
    np.testing.assert_allclose(through, dense, atol=1e-4 * np.abs(dense).max())


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_linear(backend, kind, seed, a, b):
    x, y = np.random.default_rng(seed).normal(size=(2, 2, 5, VOCAB))
    sketch = recipe(kind)
    together = backend.numpy(sketch(backend.array(a * x + b * y, "float32")))
    apart = [backend.numpy(sketch(backend.array(part, "float32"))) for part in (x, y)]
    np.testing.assert_allclose(together, a * apart[0] + b * apart[1], atol=1e-3)


@pytest.mark.parametrize("time", [4, 16], ids=["wrapping", "whole"])
@pytest.mark.parametrize("common", [0.0, 5.0], ids=["unstructured", "common row"])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_squared_length_over_seeds_is_that_of_the_logits(kind, common, time):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 9, VOCAB)) + common * rng.normal(size=VOCAB)
    lengths = [(recipe(kind, seed=seed, time=time)(logits) ** 2).sum() for seed in range(200)]
    ratios = np.array(lengths) / (logits**2).sum()
    assert abs(ratios.mean() - 1) < 3 * ratios.std(ddof=1) / np.sqrt(len(ratios))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, left=st.sampled_from([0, 5]), right=st.sampled_from([0, 3]))
def test_padding_changes_nothing(backend, kind, seed, left, right):
    logits = np.random.default_rng(seed).normal(size=(2, 6, VOCAB))
    padded = np.pad(logits, ((0, 0), (left, right), (0, 0)), constant_values=9.0)
    mask = np.pad(np.ones((2, 6), bool), ((0, 0), (left, right)))
    sketch = recipe(kind)
    got = sketch(backend.array(padded, "float32"), mask=backend.array(mask))
    np.testing.assert_allclose(
        backend.numpy(got), backend.numpy(sketch(backend.array(logits, "float32"))), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_sample_is_no_error_and_extends_a_short_one(kind):
    logits = np.random.default_rng(0).normal(size=(1, 600, VOCAB))
    sketch = recipe(kind)
    short = np.where(np.arange(600)[:, None] < 300, logits, 0)
    np.testing.assert_allclose(sketch(short), sketch(logits[:, :300]))
    np.testing.assert_allclose(sketch(logits), expected(sketch, logits, np.ones((1, 600), bool)), atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind):
    logits = np.random.default_rng(0).normal(size=(1, 6, VOCAB))
    assert (recipe(kind)(logits) == recipe(kind)(logits)).all()
    assert (recipe(kind)(logits) != recipe(kind, seed=1)(logits)).any()


@pytest.mark.parametrize("kind", ["paired", "shifted"])
def test_the_usual_length_is_ignored(kind):
    logits = np.random.default_rng(0).normal(size=(1, 6, VOCAB))
    np.testing.assert_array_equal(recipe(kind, time=4)(logits), recipe(kind, time=400)(logits))


def relative_variance(kind, logits, *, dim):
    """Of the squared length over seeds, in units of 1 / dim."""
    lengths = [(recipe(kind, vocab=logits.shape[2], seed=seed, dim=dim)(logits) ** 2).sum() for seed in range(400)]
    return dim * np.var(lengths) / (logits**2).sum() ** 2


@pytest.mark.parametrize(("kind", "flat", "common"), [("paired", 2, 9), ("shifted", 2, 4)])
def test_spread_of_lengths_over_seeds(kind, flat, common):
    """(2 + 7 c) / d and (2 + 2 c) / d, with c from 0 for a flat spectrum to 1 for a matrix of rank one."""
    rng = np.random.default_rng(0)
    many = rng.normal(size=(1, 30, 300))
    one = rng.normal(size=(1, 30, 1)) * rng.normal(size=(1, 1, 300))
    assert relative_variance(kind, many, dim=40) == pytest.approx(flat, rel=0.35)
    assert relative_variance(kind, one, dim=40) == pytest.approx(common, rel=0.35)


def test_blocks_of_shifted_rows_join_without_a_seam(backend):
    rows = np.random.default_rng(0).normal(size=(2, 300, 7))
    expected = sum(np.roll(rows[:, t], t, axis=1) for t in range(300))
    np.testing.assert_allclose(backend.numpy(shifted_sum(backend.array(rows))), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_under_jax(kind):
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    logits, mask = jax.numpy.asarray(rng.normal(size=(2, 6, VOCAB)), dtype="float32"), np.ones((2, 6), bool)
    mask[0, :2] = False
    sketch = recipe(kind)
    compiled = jax.jit(lambda logits, mask: sketch(logits, mask=mask))(logits, jax.numpy.asarray(mask))
    np.testing.assert_allclose(compiled, expected(sketch, np.asarray(logits), mask), atol=1e-3)


def test_every_process_has_the_same_constants():
    """Other numbers are another projection than the one that saved memories were made with."""
    logits = np.cos(np.arange(120.0)).reshape(1, 4, 30)
    sums = {kind: float(np.abs(recipe(kind, vocab=30)(logits)).sum()) for kind in KINDS}
    assert sums == pytest.approx(GOLDEN, rel=1e-9)


GOLDEN = {"fourier": 25.07500101669662, "paired": 27.772696912926474, "shifted": 22.529771389398988}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.PairedSketch(time=4, vocab=9, dim=0), "`dim` must be a whole number of at least 1, got 0"),
        (lambda: uds.FourierSketch(time=4, vocab=9, rank=(0, 2)), r"`rank\[0\]` must be a whole number of at least 1"),
        (lambda: uds.PairedSketch(time=4, vocab=9, dim=2.5), "`dim` must be a whole number"),  # type: ignore[arg-type]
        (lambda: uds.ShiftedSketch(time=4, vocab=9, seed=-1), "`seed` must be a whole number"),
        (lambda: uds.PairedSketch(time=4, vocab=9)(np.ones((1, 2, 8))), "vocabulary of 8, .* `vocab`=9"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()
