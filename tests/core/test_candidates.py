"""Candidates, the registry of policies, and pooling."""

from typing import Any

import numpy as np
import pytest

import uds_core as uds


def test_scored_rows_are_the_mask_and_the_labels(backend):
    mask = np.array([[1, 1, 1, 0]], bool)
    labels = np.array([[-100, 5, 6, 7]])
    candidates = uds.Candidates(
        backend.array(np.zeros((1, 4, 9)), "float32"), mask=backend.array(mask), labels=backend.array(labels)
    )
    rows = {name: backend.numpy(candidates.scored(name)).tolist() for name in ("labels", "tokens", "all")}
    assert rows == {
        "labels": [[False, True, True, False]],
        "tokens": [[True, True, True, False]],
        "all": [[True] * 4],
    }
    assert backend.numpy(candidates.lengths()).tolist() == [2]
    assert backend.numpy(candidates.lengths("tokens")).tolist() == [3]


def test_without_labels_the_mask_decides_and_without_both_every_row(backend):
    logits = backend.array(np.zeros((1, 3, 4)), "float32")
    mask = backend.array([[True, False, True]])
    assert backend.numpy(uds.Candidates(logits, mask=mask).scored()).tolist() == [[True, False, True]]
    assert backend.numpy(uds.Candidates(logits).scored()).all()


def test_a_mask_of_numbers_is_a_mask(backend):
    logits = backend.array(np.zeros((1, 3, 4)), "float32")
    candidates = uds.Candidates(logits, mask=backend.array([[1, 0, 2]]))
    assert backend.numpy(candidates.scored()).tolist() == [[True, False, True]]


def test_extras_and_ids_are_carried():
    candidates = uds.Candidates(np.zeros((2, 3, 4)), ids=np.array([7, 8]), reference_loss=np.array([0.1, 0.2]))
    assert list(candidates.ids if candidates.ids is not None else ()) == [7, 8]
    assert candidates.extra["reference_loss"].tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.Candidates(None), "candidates need `logits`"),
        (lambda: uds.Candidates(None, mask=np.ones(3, bool)), r"`labels` and `mask` must have shape"),
        (lambda: uds.Candidates(np.zeros((2, 3, 4)), mask=np.ones((2, 4), bool)), "`mask` must have shape"),
        (lambda: uds.Candidates(np.zeros((2, 3, 4)), labels=np.ones((2, 4), int)), "`labels` must have shape"),
        (lambda: uds.Candidates(np.zeros((2, 3, 4))).scored("some"), "`rows` must be"),
        (lambda: uds.Candidates(None, mask=np.ones((2, 4), bool)).logits, "scores `logits`, but"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_policies_are_known_by_name():
    kinds = {kind for kind in vars(uds).values() if isinstance(kind, type) and hasattr(kind, "choose")}
    ours = kinds - {uds.Policy}
    assert {kind.__name__.lower(): kind for kind in ours} == {name: uds.get(name) for name in uds.names()}
    assert {"full", "random", "longest", "uds", "reference", "maxloss", "rholoss", "lossdrop"} < set(uds.names())
    assert uds.get("uds") is uds.UDS
    assert uds.get("maxloss")(keep=0.5) == uds.MaxLoss(keep=0.5)
    with pytest.raises(ValueError, match=r"unknown policy 'nope'; known: .*, full, .*, uds"):
        uds.get("nope")


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="a policy named 'uds' exists"):
        uds.register("uds")(uds.Random)
    assert uds.register("uds")(uds.UDS) is uds.UDS
    with pytest.raises(ValueError, match="lower case without separators"):
        uds.register("My_Policy")


def test_every_registered_policy_keeps_the_protocol():
    for name in uds.names():
        assert isinstance(uds.get(name)(), uds.Policy)


def test_pooling_is_concatenation(backend):
    parts = [{"length": backend.array([1.0, 2.0], "float32")}, {"length": backend.array([3.0], "float32")}]
    assert backend.numpy(uds.pool(parts)["length"]).tolist() == [1, 2, 3]
    assert uds.pool(parts[:1]) is parts[0]
    with pytest.raises(ValueError, match="nothing to pool"):
        uds.pool([])


def test_a_table_of_the_selection_is_the_score_and_its_parts(backend):
    selection = uds.Selection(
        indices=backend.array(np.array([1], np.int32)),
        scores=backend.array([0.5, float("nan")], "float32"),
        parts={"utility": backend.array([3.0, 4.0], "float32"), "group": backend.array(np.array([0, 1], np.int32))},
    )
    table = selection.table()
    assert list(table) == ["score", "utility", "group"]
    assert all(type(column) is np.ndarray for column in table.values())
    np.testing.assert_array_equal(table["score"], np.array([0.5, np.nan], np.float32))
    np.testing.assert_array_equal(table["group"], [0, 1])


@pytest.mark.parametrize("library", ["torch", "jax.numpy"])
def test_half_scores_are_widened_for_the_table(library):
    xp = pytest.importorskip(library)
    scores = xp.asarray([0.5, 2.0], dtype=xp.bfloat16)
    table = uds.Selection(indices=xp.asarray([0]), scores=scores).table()
    assert table["score"].dtype == np.float32
    assert table["score"].tolist() == [0.5, 2.0]


def test_every_policy_has_a_table():
    rng = np.random.default_rng(0)
    hidden, weight = rng.normal(size=(4, 3, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    logits, labels = uds.Head(weight)(hidden), np.ones((4, 3), np.int64)
    also = {
        "reference_loss": np.ones(4, np.float32),
        "glance": rng.normal(size=(4, 8)).astype(np.float32),
        "ngrams": rng.integers(0, 9, size=(4, 8), dtype=np.int32),
        "ngram_counts": np.ones((4, 64), np.float32),
        "validation": uds.Candidates(logits, labels=labels),
    }
    candidates = uds.Candidates(logits, labels=labels, ids=np.arange(4), **also)
    for name in uds.names():
        options: dict[str, Any] = {} if name in ("full", "infobatch") else {"keep": 1.0}
        options |= {"targeted": {"target": np.ones(64)}, "rds": {"target": np.eye(2, 5)}}.get(name, {})
        policy: Any = uds.get(name)(**options)
        selection, _ = policy.choose(None, policy.examine(candidates))
        assert {column.shape for column in selection.table().values()} == {(4,)}
