"""Which records are trained on, held out and set aside: disjoint, as many as asked for, the same for a seed."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uds_adapters.lab.data.partition import ASIDE, HELDOUT, TRAIN, UNUSED, partition
from uds_adapters.lab.errors import LabError

fractions = st.floats(0.01, 0.99)
limits = st.none() | st.integers(1, 60)
OPTIONS = {"path": Path("d.jsonl"), "holdout": 0.0, "aside": 0.0, "limit": None, "eval_limit": None, "seed": 0}


def by_lists(records, *, holdout, aside, limit, eval_limit, seed):
    """The same with lists of records."""

    def split(items, fraction):
        size = min(len(items) - 1, max(1, round(fraction * len(items))))
        drawn = {*random.Random(seed).sample(range(len(items)), size)}
        return [i for n, i in enumerate(items) if n not in drawn], [items[n] for n in sorted(drawn)]

    train, heldout = split([*range(records)], holdout) if holdout else ([*range(records)], [])
    if eval_limit is None and limit is not None:
        eval_limit = max(1, round(limit * holdout / (1 - holdout)))
    train, heldout = train[:limit], heldout[:eval_limit]
    train, beside = split(train, aside) if aside else (train, [])
    return [
        TRAIN if n in train else HELDOUT if n in heldout else ASIDE if n in beside else UNUSED for n in range(records)
    ]


@given(
    records=st.integers(4, 60),
    holdout=st.just(0.0) | fractions,
    aside=st.just(0.0) | fractions,
    limit=st.none() | st.integers(2, 60),
    eval_limit=limits,
    seed=st.integers(0, 5),
)
def test_the_parts_are_those_of_lists(records, holdout, aside, limit, eval_limit, seed):
    if round(holdout * records) > records - 2:
        holdout = 0.5
    options = {"holdout": holdout, "aside": aside, "limit": limit, "eval_limit": eval_limit, "seed": seed}
    assert list(partition(records, path=Path("d"), **options)) == by_lists(records, **options)


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 1.5])
def test_a_fraction_is_checked(holdout):
    for limit in (None, 3):
        with pytest.raises(LabError, match=f"`holdout` must be a fraction between 0 and 1, got {holdout}"):
            partition(9, **{**OPTIONS, "holdout": holdout, "limit": limit})


def test_one_record_is_not_split():
    with pytest.raises(LabError, match=r"d\.jsonl: one record cannot be split"):
        partition(1, **{**OPTIONS, "holdout": 0.5})


def test_the_split_is_disjoint_complete_and_seeded():
    parts = [partition(50, **{**OPTIONS, "holdout": 0.2, "seed": seed}) for seed in (0, 0, 1)]
    assert (parts[0].count(HELDOUT), parts[0].count(TRAIN)) == (10, 40)
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]
