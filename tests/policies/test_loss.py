"""Policies by the loss: equal to the obvious loop, and where their numbers come from."""

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


def loss_of(pool):
    return reference.cross_entropy(pool.logits, np.where(pool.scored, pool.labels, -100))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_maxloss_keeps_the_highest_loss(backend, reduction):
    pool = pools.samples(0)
    loss = loss_of(pool) * (pool.length if reduction == "sum" else 1)
    indices, selection, _ = pools.picks(uds.MaxLoss(count=3, reduction=reduction), backend, None, pool)
    assert indices == reference.best_first(loss, pool.length)[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), loss, rtol=1e-4)


def test_the_sum_favours_long_samples_and_the_mean_does_not():
    logits, labels = np.zeros((2, 6, 8), np.float32), np.zeros((2, 6), np.int64)
    labels[0, 2:] = -100
    logits[1, :, 0] = 0.1  # the longer one is predicted a little better
    candidates = uds.Candidates(logits, labels=labels)
    best = [uds.MaxLoss(count=1, reduction=r) for r in ("mean", "sum")]
    assert [policy.choose(None, policy.examine(candidates))[0].indices.tolist() for policy in best] == [[0], [1]]


@pytest.mark.parametrize("known", ["column", "ledger"])
def test_rholoss_keeps_the_highest_loss_above_the_reference(backend, known):
    pool = pools.samples(0)
    table = dict(zip(pool.ids.tolist(), pool.reference_loss.tolist(), strict=True))
    book = uds.Ledger.of({**table, 99: 0.0})
    policy = uds.RHOLoss(count=3) if known == "column" else uds.RHOLoss(count=3, reference=book)
    assert policy.needs.columns == (("reference_loss",) if known == "column" else ())
    expected = loss_of(pool) - pool.reference_loss
    indices, selection, _ = pools.picks(policy, backend, None, pool)
    assert indices == reference.best_first(expected, pool.length)[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), expected, atol=1e-5)
    np.testing.assert_allclose(backend.numpy(selection.parts["loss"]), loss_of(pool), rtol=1e-4)
    np.testing.assert_allclose(backend.numpy(selection.parts["reference_loss"]), pool.reference_loss, rtol=1e-6)


def test_the_reference_is_measured_as_the_policy_measures(backend):
    """The same model as its own reference: nothing is left to learn."""
    pool = pools.samples(0)
    candidates = pools.candidates(backend, pool)
    losses = backend.numpy(uds.MaxLoss().examine(candidates)["loss"])
    book = uds.Ledger.of(dict(zip(pool.ids.tolist(), losses.tolist(), strict=True)))
    _, selection, _ = pools.picks(uds.RHOLoss(keep=1.0, reference=book), backend, None, pool)
    assert backend.numpy(selection.scores).tolist() == [0.0] * pools.BATCH


def test_a_sample_without_a_reference_is_named():
    candidates = uds.Candidates(np.zeros((3, 2, 4), np.float32), labels=np.ones((3, 2), int), ids=np.array([4, 7, 9]))
    with pytest.raises(ValueError, match=r"no reference_loss for 2 of 3 samples, such as 7"):
        uds.RHOLoss(reference=uds.Ledger.of({4: 1.0})).examine(candidates)
    with pytest.raises(ValueError, match=r"reads 'reference_loss' of each sample, and the candidates came without it"):
        uds.RHOLoss().examine(candidates)


def test_a_sample_whose_reference_is_nan_is_left_out(backend):
    pool = pools.samples(0)
    pool.reference_loss[:2] = np.nan, -np.inf
    with pytest.warns(UserWarning, match=r"too few have a score: .* recorded losses that are missing"):
        indices, selection, _ = pools.picks(uds.RHOLoss(keep=1.0), backend, None, pool)
    assert sorted(indices) == [1, 2, 3, 4, 5]
    assert np.isnan(backend.numpy(selection.scores)[0])


@pytest.mark.parametrize(
    ("policy", "ids", "words"),
    [
        (uds.MaxLoss(), None, "MaxLoss needs `labels`"),
        (uds.RHOLoss(), None, "RHOLoss needs `labels`"),
        (uds.LossDrop(start="given"), None, "reads 'start_loss'|LossDrop needs `labels`"),
        (uds.LossEMA(), [1, 2], "LossEMA needs `labels`"),
        (uds.SelectiveBackprop(), None, "SelectiveBackprop needs `labels`"),
        (uds.Quadrants(), None, "Quadrants needs `labels`"),
    ],
    ids=["maxloss", "rholoss", "lossdrop", "lossema", "selectivebackprop", "quadrants"],
)
def test_missing_labels_are_named(policy, ids, words):
    with pytest.raises(ValueError, match=words):
        policy.examine(uds.Candidates(np.zeros((2, 3, 4), np.float32), ids=ids))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (uds.MaxLoss, {"reduction": "max"}, "`reduction` must be one of 'mean', 'sum', got 'max'"),
        (uds.RHOLoss, {"reference": "column"}, "`reference` must be 'given' or a Ledger, got 'column'"),
        (uds.LossDrop, {"start": "first"}, "`start` must be 'seen' or 'given' or a Ledger, got 'first'"),
    ],
)
def test_options_are_checked_at_construction(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)
    with pytest.raises(TypeError, match=r"`reference` must be 'given' or a Ledger, got {17: 1.0}"):
        uds.RHOLoss(reference={17: 1.0})  # pyright: ignore[reportArgumentType]
