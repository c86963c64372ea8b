"""The terms of UDS alone: equal to the oracle, and to UDS with its other terms off."""

import numpy as np
import pools
import pytest
import reference

import uds_core as uds


@pytest.mark.parametrize("length", ["none", "sqrt"])
@pytest.mark.parametrize("centre", ["none", "row"])
@pytest.mark.parametrize(
    ("kind", "norm"), [(uds.Frobenius, reference.frobenius_norm), (uds.NuclearOnly, reference.nuclear_norm)]
)
def test_norms_equal_the_oracle(backend, kind, norm, centre, length):
    pool = pools.samples(0)
    logits = reference.row_centred(pool.logits) if centre == "row" else pool.logits
    expected = norm(logits, pool.scored) / (np.sqrt(pool.length) if length == "sqrt" else 1)
    indices, selection, _ = pools.picks(kind(count=3, centre=centre, length=length), backend, None, pool)
    assert indices == reference.best_first(expected, pool.length)[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), expected, rtol=3e-2 if pools.low(backend) else 1e-4)


def test_they_are_what_uds_has_with_its_other_terms_off(backend):
    pool = pools.samples(0)
    pairs = [
        (uds.NuclearOnly(keep=0.5), uds.UDS(keep=0.5, alpha=0.0, memory=4, dim=8)),
        (uds.Frobenius(keep=0.5), uds.UDS(keep=0.5, alpha=0.0, frobenius=1.0, memory=4, dim=8)),
    ]
    for alone, full in pairs:
        indices, one, _ = pools.picks(alone, backend, None, pool)
        expected, other, _ = pools.picks(full, backend, None, pool)
        assert indices == expected
        np.testing.assert_allclose(backend.numpy(one.scores), backend.numpy(other.scores), rtol=1e-6)


def test_diversity_chooses_as_the_oracle_does_also_through_a_saved_state(backend):
    policy = uds.DiversityOnly(centre="row", keep=0.5, memory=8, dim=16, seed=4)
    slow, state = reference.DiversityOnly(keep=0.5, memory=8, dim=16, seed=4), None
    for step in range(20):
        pool = pools.samples(step)
        features = policy.examine(pools.candidates(backend, pool))
        if step == 10:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = slow.step(pool.logits, pool.scored)
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-3, atol=1e-4)


def test_diversity_neither_prefers_nor_remembers_what_is_broken_or_empty(backend):
    pool = pools.samples(0)
    pool.hidden[0, 1] = np.nan
    pool.labels[1] = -100
    policy = uds.DiversityOnly(keep=1.0, memory=8, dim=16)
    with pytest.warns(UserWarning, match="too few have a score"):
        indices, selection, state = pools.picks(policy, backend, None, pool)
    assert indices == [2, 3, 4, 5, 1]
    assert np.isnan(backend.numpy(selection.scores)).tolist() == [True] + [False] * 5
    assert state.memory.size == 4


@pytest.mark.parametrize("options", [{"seed": 1}, {"length": "none"}, {"sketch": "shifted"}, {"rows": "tokens"}])
def test_a_memory_of_other_sketches_is_refused(options):
    features = {"sketch": np.ones((2, 8)), "length": np.ones(2)}
    policy = uds.DiversityOnly(keep=1.0, memory=4, dim=8)
    saved = uds.flatten(policy.choose(None, features)[1])
    assert uds.restore(policy.init(features), saved).memory.size == 2
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(uds.DiversityOnly(memory=4, dim=8, **options).init(features), saved)


@pytest.mark.parametrize("kind", [uds.Frobenius, uds.NuclearOnly, uds.DiversityOnly])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": "all"}, "`rows` must be one of"),
        ({"length": "half"}, "`length` must be one of"),
        ({"centre": "mean"}, "`centre` must be 'none', 'row' or an array"),
        ({"keep": 0.5, "count": 1}, "give one of"),
    ],
)
def test_options_are_checked_at_construction(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (uds.NuclearOnly, {"method": "magic"}, "`method` must be one of"),
        (uds.DiversityOnly, {"sketch": "magic"}, "`sketch` must be one of"),
        (uds.DiversityOnly, {"distance": "max"}, "`distance` must be one of"),
        (uds.DiversityOnly, {"memory": 0}, "`memory` must be a whole number"),
        (uds.DiversityOnly, {"dim": 0}, "`dim` must be a whole number"),
        (uds.DiversityOnly, {"seed": -1}, "`seed` must be a whole number"),
    ],
)
def test_options_of_one_alone_are_checked_too(kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(**options)
