"""The map of the records: what is alike lies together."""

import numpy as np
import pytest

from uds_adapters.lab.demo import scenario
from uds_adapters.lab.report.map import flat, place_records
from uds_adapters.lab.training.task import prepare


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    sizes = scenario.Sizes(train=40, heldout=8, texts=60, pretraining_steps=1)
    return prepare(scenario.make(tmp_path_factory.mktemp("place_records"), sizes=sizes, seed=0), seed=0)


def test_every_record_has_a_place(task):
    reported = []
    made = place_records(task, seed=0, after=reported.append)
    assert reported == [16, 32, 40]
    assert made is not None
    assert sorted(made["record"]) == list(range(40))
    assert len(made["x"]) == len(made["y"]) == 40
    assert np.std(made["x"]) >= np.std(made["y"]) > 0


def test_some_of_many_records_are_drawn_by_the_seed(task):
    one, other = place_records(task, seed=0, limit=10), place_records(task, seed=1, limit=10)
    assert one == place_records(task, seed=0, limit=10)
    assert one is not None
    assert other is not None
    assert len(set(one["record"])) == 10
    assert one["record"] != other["record"]


def test_another_seed_draws_the_same_picture(task):
    pictures = [
        made for seed in (0, 1) if (made := place_records(task, seed=seed))
    ]  # another sketch, and in other batches
    one, other = ([x for _, x in sorted(zip(made["record"], made["x"], strict=True))] for made in pictures)
    assert abs(np.corrcoef(one, other)[0, 1]) > 0.95  # left and right may be exchanged


def test_two_records_have_no_plane(task):
    assert place_records(task, seed=0, limit=2) is None


def test_the_plane_holds_what_differs_most():
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(50, 2)) * [5.0, 2.0]
    points = hidden @ np.linalg.qr(draw.normal(size=(20, 2)))[0].T + 3.0
    found = flat(points)
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert np.linalg.norm(found[:, None] - found[None], axis=2) == pytest.approx(between)
    assert found.std(axis=0)[0] > found.std(axis=0)[1]


def test_the_plane_does_not_turn_with_the_order_of_the_points():
    points = np.random.default_rng(1).normal(size=(30, 8))
    assert flat(points)[::-1] == pytest.approx(flat(points[::-1]))


def test_points_along_one_number_lie_on_a_line():
    assert flat(np.array([[1.0], [2.0], [4.0]]))[:, 1] == pytest.approx([0, 0, 0])
