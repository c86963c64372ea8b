"""Policies that go by gradients: equal to loops over gradients that are made, and what each alone promises.

The laws that they share with all policies are in `test_policies`.
"""

import numpy as np
import pytest
import reference

import uds_core as uds

BATCH, TIME, WIDTH, VOCAB = 6, 7, 5, 40
rng_of_head = np.random.default_rng(99)
WEIGHT, BIAS, SCALE = rng_of_head.normal(size=(VOCAB, WIDTH)), rng_of_head.normal(size=VOCAB), 0.7


def samples(seed, batch=BATCH, time=TIME):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(batch, time, WIDTH)) * rng.uniform(0.5, 2, size=(batch, 1, 1))
    mask = np.arange(time) < rng.integers(3, time + 1, size=(batch, 1))
    return hidden, mask, np.where(mask, rng.integers(0, VOCAB, size=(batch, time)), -100)


def candidates(backend, hidden, mask, labels, *, head=None, **extra):
    head = head or uds.Head(backend.array(WEIGHT, "float32"), backend.array(BIAS, "float32"), SCALE)
    return uds.Candidates(
        head(backend.array(hidden, "float32")), mask=backend.array(mask), labels=backend.array(labels), **extra
    )


def made(hidden, _, labels):
    return reference.head_gradients(hidden, WEIGHT, BIAS, SCALE, labels)


def chosen(backend, policy, features, state=None, groups=None):
    selection, _ = policy.choose(state, features, groups=groups)
    return backend.numpy(selection.indices).tolist(), selection


# --- MaxGrad ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_maxgrad_keeps_the_largest_norms(backend, seed):
    sample = samples(seed)
    policy = uds.MaxGrad(count=3)
    indices, selection = chosen(backend, policy, policy.examine(candidates(backend, *sample)))
    norms = np.linalg.norm(made(*sample), axis=(1, 2))
    assert indices == reference.best_first(norms, np.ones(BATCH))[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), norms, rtol=1e-5)


def test_maxgrad_in_the_logits_needs_no_hidden_states(backend):
    hidden, mask, labels = samples(0)
    logits = SCALE * (hidden @ WEIGHT.T + BIAS)
    given = {"mask": backend.array(mask), "labels": backend.array(labels)}
    dense = uds.Candidates(backend.array(logits, "float32"), **given)
    policy = uds.MaxGrad(count=3, gradient="logits")
    indices, selection = chosen(backend, policy, policy.examine(dense))
    norms = reference.logit_gradient_norm(logits, labels)
    assert indices == reference.best_first(norms, np.ones(BATCH))[:3]
    np.testing.assert_allclose(backend.numpy(selection.scores), norms, rtol=1e-5)
    with pytest.raises(ValueError, match="needs the hidden states"):
        uds.MaxGrad().examine(dense)


# --- GREATS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", ["auto", 0.05, 2.0])
def test_greats_picks_as_the_loop_over_gradients_does(backend, seed, eta):
    sample, validation = samples(seed), samples(100 + seed, batch=3, time=5)
    policy = uds.GREATS(count=4, eta=eta)
    features = policy.examine(candidates(backend, *sample, validation=candidates(backend, *validation)))
    indices, selection = chosen(backend, policy, features)
    options = {} if eta == "auto" else {"eta": eta}
    expected, scores = reference.greats(made(*sample), made(*validation), count=4, **options)
    assert indices == expected
    np.testing.assert_allclose(backend.numpy(selection.scores), scores, rtol=1e-3, atol=1e-5 * np.abs(scores).max())


def test_greats_takes_products_of_any_gradients(backend):
    rng = np.random.default_rng(0)
    gradients, validation = rng.normal(size=(BATCH, 30)), rng.normal(size=(2, 30))
    given = {
        "labels": backend.array(np.zeros((BATCH, 2), int)),
        "products": backend.array(gradients @ gradients.T, "float32"),
        "validation_products": backend.array(gradients @ validation.T, "float32"),
    }
    policy = uds.GREATS(count=3)
    indices, _ = chosen(backend, policy, policy.examine(uds.Candidates(None, **given)))
    assert indices == reference.greats(gradients, validation, count=3)[0]


def test_greats_takes_a_copy_only_once_where_its_step_is_long(backend):
    hidden, mask, labels = samples(0)
    for part in (hidden, mask, labels):
        part[4] = part[1]
    extra = {"validation": candidates(backend, hidden[1:2], mask[1:2], labels[1:2])}
    features = uds.GREATS().examine(candidates(backend, hidden, mask, labels, **extra))
    assert {1, 4} == set(chosen(backend, uds.GREATS(count=2, weight=0.0), features)[0])
    assert len({1, 4} & set(chosen(backend, uds.GREATS(count=2, weight=20.0), features)[0])) == 1


def test_greats_ignores_a_broken_validation_sample(backend):
    sample, (hidden, mask, labels) = samples(0), samples(1, batch=3)
    sound = {"validation": candidates(backend, hidden[:2], mask[:2], labels[:2])}
    expected = uds.GREATS().examine(candidates(backend, *sample, **sound))
    hidden[2] = np.nan
    got = uds.GREATS().examine(candidates(backend, *sample, validation=candidates(backend, hidden, mask, labels)))
    np.testing.assert_allclose(
        backend.numpy(got["alignment"]), backend.numpy(expected["alignment"]), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("sizes", [(3, 3), (2, 4)], ids=["alike", "not alike"])
def test_greats_refuses_a_pool_of_several_batches(backend, sizes):
    sample, policy = samples(0), uds.GREATS(keep=0.5)
    extra = {"validation": candidates(backend, *samples(1))}
    parts = [slice(0, sizes[0]), slice(sizes[0], sum(sizes))]
    features = [policy.examine(candidates(backend, *(x[part] for x in sample), **extra)) for part in parts]
    with pytest.raises(ValueError, match="choose from each batch"):
        policy.choose(None, uds.pool(features))


def test_greats_takes_batches_that_are_groups(backend):
    """As several processes have them: each keeps what it would keep alone."""
    policy, extra = uds.GREATS(count=2, eta=0.5), {"validation": candidates(backend, *samples(1))}
    features = [policy.examine(candidates(backend, *samples(seed), **extra)) for seed in (2, 3)]
    alone = [chosen(backend, policy, one)[0] for one in features]
    groups = np.repeat([0, 1], BATCH)
    indices, _ = chosen(backend, policy, uds.pool(features), groups=backend.array(groups, "int32"))
    assert [[i % BATCH for i in indices if groups[i] == group] for group in (0, 1)] == alone
    with pytest.raises(ValueError, match="choose from each batch"):
        chosen(backend, policy, uds.pool(features), groups=backend.array(groups * 0, "int32"))


def test_greats_says_what_it_lacks(backend):
    with pytest.raises(ValueError, match="GREATS needs validation samples"):
        uds.GREATS().examine(candidates(backend, *samples(0)))
    hidden, mask, _ = samples(0)
    for policy in (uds.GREATS(), uds.MaxGrad(), uds.DivBS()):
        given = uds.Candidates(
            uds.Head(backend.array(WEIGHT, "float32"))(backend.array(hidden, "float32")),
            mask=backend.array(mask),
            validation=candidates(backend, *samples(0)),
        )
        with pytest.raises(ValueError, match=f"{type(policy).__name__} needs `labels`"):
            policy.examine(given)


# --- DivBS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_divbs_picks_as_the_loop_over_sketches_does(backend, seed):
    sample = samples(seed)
    policy = uds.DivBS(count=4, dim=64, seed=2)
    features = policy.examine(candidates(backend, *sample))
    indices, _ = chosen(backend, policy, features)
    assert indices == reference.divbs(reference.gradient_sketch(made(*sample), dim=64, seed=2), count=4)


@pytest.mark.parametrize("seed", range(5))
def test_divbs_picks_as_the_loop_over_gradients_does_where_sketches_are_large(seed):
    sample = samples(seed, batch=4)
    policy = uds.DivBS(count=2, dim=4096)
    features = policy.examine(
        uds.Candidates(uds.Head(WEIGHT, BIAS, SCALE)(sample[0]), mask=sample[1], labels=sample[2])
    )
    assert policy.choose(None, features)[0].indices.tolist() == reference.divbs(made(*sample), count=2)


def test_divbs_takes_no_copy_while_something_else_is_left(backend):
    hidden, mask, labels = samples(0)
    for part in (hidden, mask, labels):
        part[[3, 5]] = part[1]
    policy = uds.DivBS(count=4, dim=64)
    indices, _ = chosen(backend, policy, policy.examine(candidates(backend, hidden, mask, labels)))
    assert len({1, 3, 5} & set(indices)) == 1


def test_divbs_fills_up_at_random_where_the_picked_span_the_rest():
    """Each of the rest equally often, and the same at the same step."""
    features = {"sketch": np.repeat(np.eye(2, 8), [1, 7], axis=0), "length": np.ones(8)}
    policy, state, counts = uds.DivBS(count=4, seed=1), None, np.zeros(8)
    for step in range(1200):
        selection, after = policy.choose(state, features)
        assert selection.indices.tolist() == policy.choose(state, features)[0].indices.tolist()
        assert set(selection.indices[:2].tolist()) == {0, 1}
        counts[selection.indices[2:]] += 1
        state = after
        assert state == (step + 1,)
    assert counts[:2].sum() == 0
    assert ((counts[2:] - 400) ** 2 / 400).sum() < 20.5  # 0.999 quantile at 5 degrees of freedom


def test_divbs_picks_what_stands_for_the_sum():
    sketch = np.array([[3.0, 0, 0], [0, 1, 0], [3, 1, 0], [0, 0, 2]])
    policy = uds.DivBS(count=3)
    selection, _ = policy.choose(None, {"sketch": sketch, "length": np.ones(4)})
    goal = sketch.sum(axis=0)
    np.testing.assert_allclose(selection.scores, np.abs(sketch @ goal) / np.linalg.norm(sketch, axis=1))
    assert selection.indices.tolist() == [2, 3, 0]


# --- all -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [uds.GREATS(count=1), uds.DivBS(count=1, dim=16), uds.MaxGrad(count=1)])
def test_groups_keep_their_own(backend, policy):
    extra = {"validation": candidates(backend, *samples(1))}
    features = policy.examine(candidates(backend, *samples(0), **extra))
    groups = backend.array([0, 1, 0, 1, 2, 2], "int32")
    indices, _ = chosen(backend, policy, features, groups=groups)
    assert sorted([0, 1, 0, 1, 2, 2][i] for i in indices) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: uds.get("maxgrad")(gradient="weights"), ValueError, "`gradient` must be one of 'head', 'logits'"),
        (lambda: uds.GREATS(eta=0), ValueError, "`eta` must be positive and finite, or 'auto'"),
        (lambda: uds.get("greats")(eta="large"), TypeError, "`eta` must be positive and finite, or 'auto'"),
        (lambda: uds.GREATS(weight=-1.0), ValueError, "`weight` must be finite, at least 0"),
        (lambda: uds.GREATS(keep=2), ValueError, "`keep`"),
        (lambda: uds.DivBS(dim=0), ValueError, "`dim`"),
        (lambda: uds.DivBS(seed=-1), ValueError, "`seed`"),
    ],
)
def test_options_are_checked(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_they_are_known_by_name():
    assert [uds.get(name) for name in ("maxgrad", "greats", "divbs")] == [uds.MaxGrad, uds.GREATS, uds.DivBS]
