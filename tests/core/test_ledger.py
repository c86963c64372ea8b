"""Numbers by identity: equal to a dictionary, whatever comes in which order."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds
from uds_core import ledger

IDS = st.integers(-5, 5) | st.sampled_from([2**62, -(2**63)])
ENTRIES = st.lists(st.tuples(IDS, st.floats(-10, 10, width=32) | st.just(float("nan"))), max_size=8)


def test_examples_run():
    assert doctest.testmod(ledger).failed == 0


@given(st.lists(ENTRIES, max_size=6))
def test_equals_a_dictionary(steps):
    book, known = uds.Ledger.empty(), {}
    for entries in steps:
        ids, values = (np.array([entry[i] for entry in entries], kind) for i, kind in enumerate(("int64", "float32")))
        before = book.ids.copy(), book.values.copy()
        after = book.enter(ids, values)
        np.testing.assert_array_equal(book.ids, before[0])
        np.testing.assert_array_equal(book.values, before[1])
        book = after
        fresh = {}
        for identity, value in entries:
            if not np.isnan(value):
                fresh.setdefault(identity, value)
        known |= fresh
        assert book.ids.tolist() == sorted(known)
        book.check(book)
    asked = np.array([-5, 0, 3, 2**62, 77], np.int64)
    expected = np.array([known.get(int(i), np.nan) for i in asked], np.float32)
    np.testing.assert_array_equal(book.look_up(asked), expected)
    assert (book.ids.dtype, book.values.dtype, book.look_up(asked).dtype) == (np.int64, np.float32, np.float32)


def test_survives_a_checkpoint_whatever_its_size():
    book = uds.Ledger.of({3: 1.0, -1: 2.0, 2**40: 0.5})
    back = uds.restore(uds.Ledger.empty(), uds.flatten(book))
    np.testing.assert_array_equal(back.ids, [-1, 3, 2**40])
    np.testing.assert_array_equal(back.values, book.values)
    assert uds.restore(uds.Ledger.empty(), uds.flatten(uds.Ledger.empty())).ids.size == 0


@pytest.mark.parametrize(("ids", "values"), [([1, 2], [1.0]), ([2, 1], [1.0, 2.0]), ([1, 1], [1.0, 2.0]), ([], [1.0])])
def test_a_damaged_ledger_is_named(ids, values):
    arrays = {"ids": np.array(ids, np.int64), "values": np.array(values, np.float32)}
    with pytest.raises(ValueError, match="the file is damaged"):
        uds.restore(uds.Ledger.empty(), arrays)


def test_other_shapes_do_not_pass_for_growth():
    arrays = {"ids": np.zeros((2, 2), np.int64), "values": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=r"'ids' has shape \(2, 2\), this policy expects \(0,\)"):
        uds.restore(uds.Ledger.empty(), arrays)


def test_words_are_no_identities():
    with pytest.raises(TypeError, match=r"`numbers` must map whole numbers, .* got 'a' among them"):
        uds.Ledger.of({"a": 1.0})  # pyright: ignore[reportArgumentType]
    assert uds.Ledger.of({}).ids.size == 0
