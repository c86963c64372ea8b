"""Random constants: one stream for each use, and no two of them alike."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import uds_core as uds
from uds_core._random import Stream, generator, position_signs

NUMBERS = (0, 1, 2, 5, 2**32 - 1)


def start(*key):
    return generator(*key).bit_generator.state["state"]["state"]


def test_no_two_seeds_streams_and_keys_start_alike():
    seeds = (*NUMBERS, 2**32, 2**32 + 1, 5 * 2**32, 2**63 - 1)
    starts = {start(*key) for key in itertools.product(seeds, Stream, NUMBERS)}
    assert len(starts) == len(seeds) * len(Stream) * len(NUMBERS)


def test_a_stream_is_four_words_of_its_own():
    expected = np.random.default_rng([7, Stream.GUMBEL, 3, 2]).random()
    assert generator(7 + 2 * 2**32, Stream.GUMBEL, 3).random() == expected
    assert start(7, Stream.FOLD) == start(np.int64(7), Stream.FOLD, np.int64(0))


def test_numbers_of_streams_stay_as_saved_sketches_have_them():
    assert [Stream(number).name for number in range(12)] == [
        "TIME", "VOCAB", "FREQUENCIES", "FOLD", "RELEASED", "SUBSPACE", "RESERVOIR", "RANDOM", "GUMBEL",
        "WIDTH", "GLANCE", "NGRAMS"
    ]  # fmt: skip


def test_one_policy_draws_its_step_its_reservoir_and_its_noise_apart():
    assert len({start(3, stream, 5) for stream in (Stream.RANDOM, Stream.RESERVOIR, Stream.GUMBEL, Stream.TIME)}) == 4


def test_nothing_is_drawn_but_here():
    files = Path(uds.__file__).parent.rglob("*.py")
    assert [file.name for file in files if "np.random.default_rng(" in file.read_text("utf-8")] == ["_random.py"]


def test_signs_of_a_longer_sample_begin_with_those_of_a_shorter():
    long = position_signs(1, 1100, 2)
    np.testing.assert_array_equal(long[:600], position_signs(1, 600, 2))
    assert (long[:512] != long[512:1024]).any()
    assert position_signs(1, 0, 2).shape == (0, 2)
    assert set(np.unique(long)) == {-1, 1}


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        ((-1, 0), ValueError, r"`seed` must be a whole number of at least 0 and below 2\*\*63, got -1"),
        ((2**63, 0), ValueError, "`seed` must be a whole number"),
        ((1.0, 0), ValueError, "`seed` must be a whole number"),
        (("1", 0), TypeError, r"`seed` must be a whole number .*, got '1' \(str\)"),
        ((1, 0, -1), ValueError, r"`key` must be a whole number of at least 0 and below 2\*\*32, got -1"),
        ((1, 0, 2**32), ValueError, "`key` must be"),
        ((1, 0, 0.0), TypeError, "`key` must be"),
    ],
)
def test_seeds_and_keys_that_have_no_words(key, error, words):
    with pytest.raises(error, match=words):
        generator(*key)
