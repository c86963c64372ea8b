"""A head whose weight changes: rows drawn from it, and its factor corrected by them."""

from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds

seeds = st.integers(0, 2**32 - 1)


def weights(seed, *, vocab=40, width=5, bias=True, size=0.1) -> Any:
    """A weight and bias, and the same moved by `size`."""
    rng = np.random.default_rng(seed)
    before: Any = rng.normal(size=(vocab, width)), rng.normal(size=vocab) if bias else None
    after: Any = tuple(None if x is None else x + size * rng.normal(size=x.shape) for x in before)
    return before, after


def corrected(before, after, number, *, seed=0, array=np.asarray) -> Any:
    """A head that was prepared for the weights `before`, corrected for those `after`."""
    (old, bias), new = map(array, before), map(array, after)
    head = uds.Head(old, bias, 0.5, factor_by="gram")
    rows = head.drawn(number, seed=seed)
    assert head.factor is not None
    assert head.centred().factor is not None
    return head.updated(*new, since=rows)


def augmented(weight, bias, scale=0.5):
    return scale * (weight if bias is None else np.column_stack([weight, bias]))


@pytest.mark.parametrize("bias", [False, True])
def test_drawn_rows_are_copies_of_the_augmented_head(backend, bias):
    (weight, b), _ = weights(0, bias=bias)
    dtype = backend.floats[0]
    head = uds.Head(backend.array(weight, dtype), backend.array(b, dtype) if bias else None, 0.5)
    for number, expected in ((1, 1), (7, 7), (40, 40), (41, 40)):
        rows = head.drawn(number, seed=3)
        index = backend.numpy(rows.index)
        assert len(set(index.tolist())) == expected
        assert index.tolist() == reference.vocabulary_entries(40, expected, 3).tolist()
        np.testing.assert_allclose(backend.numpy(rows.values), augmented(weight, b)[index], rtol=1e-6)


@pytest.mark.parametrize("centre", ["none", "row"])
@pytest.mark.parametrize("bias", [False, True])
def test_corrected_by_all_rows_a_head_is_that_of_the_new_weights(backend, bias, centre):
    before, after = weights(1, bias=bias)
    made = corrected(before, after, 40, array=lambda x: None if x is None else backend.array(x, backend.floats[0]))
    hidden = np.random.default_rng(2).normal(size=(3, 6, 5))
    weight, b = after
    logits = 0.5 * (hidden @ weight.T + (0 if b is None else b))
    logits = logits - logits.mean(axis=2, keepdims=True) if centre == "row" else logits
    view = made(backend.array(hidden, backend.floats[0])).centred(centre)
    np.testing.assert_allclose(
        backend.numpy(uds.nuclear_norm(view)), reference.nuclear_norm(logits, np.ones((3, 6), bool)), rtol=1e-4
    )


@given(seed=seeds, number=st.sampled_from([6, 20, 39]), bias=st.booleans(), size=st.floats(1e-3, 0.3))
def test_a_correction_is_that_of_the_formula(seed, number, bias, size):
    before, after = weights(seed, bias=bias, size=size)
    made = corrected(before, after, number, seed=seed % 7, array=lambda x: x)
    index = reference.vocabulary_entries(40, number, seed % 7)
    old, new = augmented(*before), augmented(*after)
    mean = old.mean(axis=0) + (new - old)[index].mean(axis=0)
    np.testing.assert_allclose(made.centred()._offset, mean)
    for view, pair in ((made, (old, new)), (made.centred(), (old - old.mean(axis=0), new - mean))):
        expected = reference.corrected_gram(*pair, index)
        np.testing.assert_allclose(view.factor @ view.factor.T, expected, atol=1e-9 * np.abs(expected).max())


def test_corrections_are_unbiased_and_err_in_proportion_to_the_change():
    errors = []
    for size in (0.01, 0.001):
        before, after = weights(5, vocab=200, size=size)
        exact = augmented(*after).T @ augmented(*after)
        made = [corrected(before, after, 50, seed=seed).factor for seed in range(200)]
        grams = np.stack([factor @ factor.T for factor in made])
        spread = grams.std(axis=0)
        assert (np.abs(grams.mean(axis=0) - exact) <= 5 * spread / len(made) ** 0.5 + 1e-9).all()
        errors.append(spread.mean())
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_sketches_and_what_was_not_derived_are_of_the_new_weights(backend):
    before, after = weights(3)
    dtype = backend.floats[0]
    arrays = [[backend.array(x, dtype) for x in one] for one in (before, after)]
    head = uds.Head(*arrays[0], factor_by="gram")
    sketch, hidden = uds.PairedSketch(time=6, vocab=40, dim=8), backend.array(np.ones((2, 3, 5)), dtype)
    sketch(head(hidden))
    made = head.updated(*arrays[1], since=head.drawn(3))
    fresh = uds.Head(*arrays[1], factor_by="gram")
    assert made.projection(sketch) is made.projection(sketch)
    for call in (sketch, uds.nuclear_norm, lambda logits: uds.nuclear_norm(logits.centred("row"))):
        np.testing.assert_allclose(backend.numpy(call(made(hidden))), backend.numpy(call(fresh(hidden))), rtol=1e-6)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", True])
def test_a_number_of_rows_that_is_none_is_an_error(wrong):
    with pytest.raises((TypeError, ValueError), match="`number`"):
        uds.Head(np.ones((3, 2))).drawn(wrong)
