"""UDS: equal to the oracle over many steps, and what each of its options promises."""

from typing import Any

import numpy as np
import pytest
import reference
from pools import BATCH, TIME, WEIGHT, WIDTH, Pool, candidates, low, picks, samples, warm

import uds_core as uds
from uds_core.policies._sketched import make_sketch


@pytest.mark.parametrize("policy", [uds.UDS(keep=0.5, dim=8), uds.UDS(tokens=9, dim=8)], ids=["share", "tokens"])
def test_in_the_first_pool_a_broken_sample_is_not_chosen_either(backend, policy):
    logits = np.random.default_rng(0).normal(size=(2, 4, 9))
    logits[0, 1, 2] = np.nan
    features = policy.examine(uds.Candidates(backend.array(logits, "float32")))
    assert backend.numpy(policy.choose(None, features)[0].indices).tolist() == [1]


@pytest.mark.parametrize(
    "options",
    [{"seed": 1}, {"sketch": "shifted"}, {"length": "none"}, {"rows": "tokens"}, {"centre": np.ones(5)}],
)
def test_a_memory_of_other_sketches_is_refused(options):
    from dataclasses import replace

    features = {"utility": np.ones(2), "sketch": np.ones((2, 8)), "length": np.ones(2)}
    policy = uds.UDS(keep=1.0, memory=4, dim=8)
    saved = uds.flatten(policy.choose(None, features)[1])
    assert uds.restore(replace(policy, keep=0.5, alpha=1.0).init(features), saved).memory.size == 2
    with pytest.raises(ValueError, match="the saved sketches were made with other options"):
        uds.restore(replace(policy, **options).init(features), saved)


def test_groups_keep_their_own_and_share_the_state(backend):
    policy = uds.UDS(count=1, memory=4, dim=8)
    groups = backend.array([0, 0, 0, 1, 1, 1], "int32")
    indices, _, state = picks(policy, backend, None, samples(0), groups=groups)
    assert len(indices) == 2
    assert {i // 3 for i in indices} == {0, 1}
    assert state.memory.size == 2


@pytest.mark.parametrize(("options", "nearest"), [({}, 8), ({"distance": "mean"}, None)], ids=["default", "mean"])
@pytest.mark.parametrize("alpha", ["auto", 0.5])
def test_fifty_steps_choose_as_the_oracle_does_also_through_a_saved_state(backend, alpha, options, nearest):
    policy = uds.UDS(centre="row", keep=0.5, alpha=alpha, memory=20, dim=16, seed=4, **options)
    oracle = reference.UDS(keep=0.5, alpha=alpha, memory=20, dim=16, seed=4, nearest=nearest)
    state: Any = None
    for step in range(50):
        hidden, mask, labels, *_ = samples(step)
        features = policy.examine(candidates(backend, Pool(hidden, mask, labels)))
        if step == 25:
            state = uds.restore(policy.init(features), uds.flatten(state))
        selection, state = policy.choose(state, features)
        expected, scores = oracle.step(hidden @ WEIGHT.T, mask & (labels != -100))
        assert backend.numpy(selection.indices).tolist() == expected, step
        np.testing.assert_allclose(
            backend.numpy(selection.scores), scores, rtol=3e-2 if low(backend) else 1e-3, atol=1e-3
        )
    assert state.memory.size == 20


def test_alpha_zero_without_normalisation_is_top_k_of_the_nuclear_norm(backend):
    hidden, mask, labels, *_ = sample = samples(0)
    policy = uds.UDS(count=3, alpha=0.0, length="none", centre="none", memory=4, dim=8)
    indices, selection, _ = picks(policy, backend, warm(policy, backend), sample)
    norm = reference.nuclear_norm(hidden @ WEIGHT.T, mask & (labels != -100))
    assert indices == reference.best_first(norm, np.ones(BATCH))[:3]
    np.testing.assert_allclose(backend.numpy(selection.parts["utility"]), norm, rtol=3e-2 if low(backend) else 1e-4)


@pytest.mark.parametrize(("length", "power"), [("none", 0), ("sqrt", 0.5), ("mean", 1)])
def test_length_divides_utility_and_sketch_alike(backend, length, power):
    sample = samples(0)
    raw = uds.UDS(length="none", dim=8).examine(candidates(backend, sample))
    got = uds.UDS(length=length, dim=8).examine(candidates(backend, sample))
    divisor = backend.numpy(raw["length"]) ** power
    for name in ("utility", "sketch"):
        expected = (backend.numpy(raw[name]).T / divisor).T
        np.testing.assert_allclose(backend.numpy(got[name]), expected, rtol=1e-4, atol=1e-5)


def test_row_centring_does_not_see_a_constant_on_all_logits_of_a_row(backend):
    hidden, mask, labels, *_ = samples(0)
    shift = np.random.default_rng(3).normal(size=(BATCH, TIME, 1)) * 10
    got = []
    for logits in (hidden @ WEIGHT.T, hidden @ WEIGHT.T + shift):
        given = uds.Candidates(backend.array(logits, "float32"), mask=backend.array(mask), labels=backend.array(labels))
        got.append({k: backend.numpy(v) for k, v in uds.UDS(dim=8, centre="row").examine(given).items()})
    for name in got[0]:
        np.testing.assert_allclose(got[1][name], got[0][name], rtol=3e-2 if low(backend) else 1e-3, atol=1e-3)


def test_a_mean_hidden_row_can_be_taken_out(backend):
    hidden, mask, labels, *_ = samples(0)
    row = hidden.mean(axis=(0, 1))
    policy = uds.UDS(centre=backend.array(row, "float32"), length="none", dim=8, method="svd")
    features = policy.examine(candidates(backend, Pool(hidden, mask, labels)))
    expected = reference.nuclear_norm((hidden - row) @ WEIGHT.T, mask & (labels != -100))
    np.testing.assert_allclose(backend.numpy(features["utility"]), expected, rtol=1e-4)


def test_diversity_prefers_what_is_unlike_the_memory(backend):
    """A candidate like those chosen before loses to one that is not, although its utility is a little higher."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(2, TIME, WIDTH))
    mask, labels = np.ones((2, TIME), bool), np.zeros((2, TIME), int)
    policy = uds.UDS(count=1, alpha=1.0, centre="none", length="none", memory=4, dim=64)
    _, _, state = picks(policy, backend, None, Pool(old[None], mask[:1], labels[:1]))
    norms = reference.nuclear_norm(np.stack([old, new]) @ WEIGHT.T, mask)
    pair = np.stack([old, new * 0.99 * norms[0] / norms[1]])
    assert picks(policy, backend, None, Pool(pair, mask, labels))[0] == [0]
    assert picks(policy, backend, state, Pool(pair, mask, labels))[0] == [1]


def test_auto_chooses_alike_when_all_logits_are_multiplied(backend):
    policy = uds.UDS(keep=0.5, memory=8, dim=16)
    states: list[Any] = [None, None]
    for step in range(6):
        hidden, mask, labels, *_ = samples(step)
        got = []
        for i, factor in enumerate((1.0, 7.3)):
            indices, _, states[i] = picks(policy, backend, states[i], Pool(factor * hidden, mask, labels))
            got.append(indices)
        assert got[0] == got[1]


def test_without_diversity_a_vocabulary_said_twice_changes_no_choice(backend):
    hidden, mask, labels, *_ = samples(0)
    policy = uds.UDS(keep=0.5, memory=8, dim=16, alpha=0.0)
    got = []
    for logits in (hidden @ WEIGHT.T, np.tile(hidden @ WEIGHT.T, 2)):
        given = uds.Candidates(backend.array(logits, "float32"), mask=backend.array(mask), labels=backend.array(labels))
        got.append(backend.numpy(policy.choose(None, policy.examine(given))[0].indices).tolist())
    assert got[0] == got[1]


def given(backend, utility, sketch, length=None, **more):
    """Features as `examine` gives them, of numbers of one's own."""
    length = np.ones(len(utility)) if length is None else length
    columns = {"utility": utility, "sketch": sketch, "length": length, **more}
    return {name: backend.array(np.asarray(values, float), "float32") for name, values in columns.items()}


@pytest.mark.parametrize("options", [{"alpha": "auto"}, {"alpha": "rank"}, {"alpha": 0.5}, {"in_batch": "greedy"}])
def test_samples_without_rows_change_nothing_for_the_others(backend, options):
    """Half of them are empty, as where prompts are cut before the answer; the others are chosen as without them."""
    policy = uds.UDS(count=2, memory=6, dim=4, **options)
    states: list[Any] = [None, None]
    for step in range(4):
        rng = np.random.default_rng(step)
        utility, sketch, length = rng.uniform(1, 9, size=8), rng.normal(size=(8, 4)), np.tile([3, 0], 4)
        utility[1::2], sketch[1::2] = 0, 0
        (mixed, states[0]), (alone, states[1]) = (
            policy.choose(state, given(backend, utility[part], sketch[part], length[part]))
            for state, part in zip(states, (slice(None), slice(0, None, 2)), strict=True)
        )
        assert backend.numpy(mixed.indices).tolist() == [2 * i for i in backend.numpy(alone.indices)]
        if options.get("alpha") != "rank":  # ranks are shares of all candidates
            np.testing.assert_allclose(backend.numpy(mixed.scores)[::2], backend.numpy(alone.scores), rtol=1e-6)
        np.testing.assert_allclose(
            backend.numpy(mixed.metrics["alpha"]), backend.numpy(alone.metrics["alpha"]), rtol=1e-6
        )
        np.testing.assert_array_equal(backend.numpy(mixed.scores)[1::2], 0)


def test_samples_without_rows_never_enter_the_memory(backend):
    policy = uds.UDS(keep=1.0, memory=8, dim=4)
    _, state = policy.choose(None, given(backend, [0, 5, 0, 4], np.eye(4), [0, 2, 0, 3]))
    assert state.memory.size == 2
    np.testing.assert_array_equal(backend.numpy(state.memory.filled), np.eye(4)[[1, 3]])


def test_the_order_of_a_pool_longer_than_the_window_hardly_counts():
    """As where a file holds one source after the other, and a data set is scored as one pool."""
    rng = np.random.default_rng(0)
    utility = np.concatenate([rng.normal(100, 20, size=1400), rng.normal(100, 1, size=600)])
    sketch, policy = rng.normal(size=(2000, 4)), uds.UDS(count=10, memory=8, dim=4)
    alphas = []
    for order in (np.arange(2000), rng.permutation(2000)):
        features = {"utility": utility[order], "sketch": sketch[order], "length": np.ones(2000)}
        _, state = policy.choose(None, features)
        alphas.append(float(policy.choose(state, features)[0].metrics["alpha"]))
    assert alphas[0] == pytest.approx(alphas[1], rel=0.3)  # 0.75 and 7.8 where the last 512 counted alone


def test_the_ratio_and_the_radius_are_medians_over_past_pools_too(backend):
    sketch = np.eye(4)
    policy = uds.UDS(count=1, alpha=0.0, frobenius=0.5, memory=4, dim=4)
    _, state = policy.choose(None, given(backend, [10, 10, 10], sketch[:3], frobenius=[1, 1, 1]))
    selection, _ = policy.choose(state, given(backend, [4, 6], sketch[:2], frobenius=[2, 2]))
    # ratios 10, 10, 10, 2, 3: the median of the pool alone is 2.5
    np.testing.assert_allclose(backend.numpy(selection.parts["utility"]), [2 + 10, 3 + 10], rtol=1e-5)

    policy = uds.UDS(count=2, alpha=0.0, memory=4, dim=4, in_batch="greedy")
    _, state = policy.choose(None, given(backend, [1] * 4, 100 * sketch))  # nearest ones are 141 off
    near = np.zeros((3, 4))
    near[:, 0] = [0.0, 1.0, 50.0]  # nearest: 1, 1, 49
    selection, _ = policy.choose(state, given(backend, [3.0, 2.9, 1.0], near))
    assert backend.numpy(selection.indices).tolist() == [0, 2]  # with a radius of 1, 2.9 would not be lowered


def test_distances_within_the_pool_are_to_those_that_have_rows(backend):
    sketch = np.zeros((4, 4))
    sketch[:, 0] = [0.0, 3.0, 5.0, 1.0]
    policy = uds.UDS(count=1, memory=4, dim=4, in_batch="mean")
    selection, state = policy.choose(None, given(backend, [1, 2, 3, 0], sketch, [1, 1, 1, 0]))
    np.testing.assert_allclose(backend.numpy(selection.parts["diversity"])[:3], [4.0, 2.5, 3.5], rtol=1e-5)
    assert float(backend.numpy(selection.metrics["alpha"])) > 0  # known before anything is remembered
    _, state = uds.UDS(count=1, memory=4, dim=4, in_batch="greedy").choose(
        None, given(backend, [1, 2, 3, 0], sketch, [1, 1, 1, 0])
    )
    np.testing.assert_allclose(backend.numpy(state.nearest)[-4:], [3.0, 2.0, 2.0, np.nan], rtol=1e-5)


def test_options_reach_what_they_name(backend):
    sample = samples(0)
    hidden, mask, labels, *_ = sample
    features = uds.UDS(dim=8, method="frobenius", length="none").examine(candidates(backend, sample))
    expected = reference.frobenius_norm(hidden @ WEIGHT.T, mask & (labels != -100))
    np.testing.assert_allclose(backend.numpy(features["utility"]), expected, rtol=1e-4)
    remembered, now = np.random.default_rng(0).normal(size=(2, 12, 4))
    for distance in ("mean", "nearest", "softmin"):
        policy = uds.UDS(count=12, memory=12, dim=4, distance=distance)
        _, state = policy.choose(None, given(backend, np.ones(12), remembered))
        selection, _ = policy.choose(state, given(backend, np.ones(12), now))
        expected = uds.diversity(now, remembered, distance=distance)
        np.testing.assert_allclose(backend.numpy(selection.parts["diversity"]), expected, rtol=1e-4)
    reservoir = uds.UDS(count=1, memory=4, dim=4, replace="reservoir", seed=5)
    state: Any = reservoir.choose(None, given(backend, np.ones(4), np.eye(4)))[1]
    assert state.memory.seed == 5
    fourier: Any = make_sketch("fourier", dim=1024, seed=3, vocab=4096)
    assert (fourier.rank, fourier.seed) == ((8, 128), 3)


@pytest.mark.parametrize(("temperature", "most"), [(1e-3, 1), (1e3, 400)])
def test_the_temperature_is_that_of_the_draws(temperature, most):
    """Cold, the best are drawn always; hot, any are."""
    policy = uds.UDS(count=2, alpha=0.0, length="none", memory=4, dim=4, temperature=temperature)
    features = {"utility": np.arange(1.0, 7.0), "sketch": np.eye(6)[:, :4], "length": np.ones(6)}
    state, seen = policy.init(features), set()
    for step in range(200):
        selection, _ = policy.choose(state._replace(step=step), features)
        seen.add(tuple(sorted(selection.indices.tolist())))
        assert selection.weights is not None
        assert selection.weights.shape == (2,)
    assert (seen == {(4, 5)}) if most == 1 else len(seen) == 15


@pytest.mark.parametrize("pairs", [3, 4])
def test_greedy_takes_one_of_each_pair_however_many_there_are(backend, pairs):
    """Where most candidates have a copy, the running radius is zero."""
    sketch = np.repeat(np.eye(4)[:pairs], 2, axis=0)
    policy = uds.UDS(count=pairs, memory=8, dim=4, in_batch="greedy")
    selection, _ = policy.choose(None, given(backend, np.arange(2.0 * pairs) + 1, sketch))
    assert sorted(i // 2 for i in backend.numpy(selection.indices).tolist()) == list(range(pairs))


def twins(seed=0, copies=3):
    """A pool that holds its best sample several times over, and others."""
    hidden, mask, labels, *_ = samples(seed, batch=BATCH + copies - 1)
    best = int(np.argmax(reference.nuclear_norm(hidden @ WEIGHT.T, mask & (labels != -100))))
    for part in (hidden, mask, labels):
        part[-copies + 1 :] = part[best]
    return Pool(hidden, mask, labels), {best, *range(BATCH, BATCH + copies - 1)}


def test_greedy_takes_one_of_several_copies(backend):
    pool, copies = twins()
    options = {"count": 3, "memory": 8, "dim": 16, "alpha": 0.0, "length": "none", "centre": "none"}
    plain, _, _ = picks(uds.UDS(**options), backend, None, pool)
    assert len(copies & set(plain)) == 3
    spread, _, _ = picks(uds.UDS(in_batch="greedy", **options), backend, None, pool)
    assert len(copies & set(spread)) == 1
    assert spread[0] == plain[0]


@pytest.mark.parametrize("seed", range(25))
def test_greedy_never_picks_a_copy_while_something_else_is_left(seed):
    from conftest import Backend

    backend = Backend("numpy", np)
    pool, copies = twins(seed)
    policy = uds.UDS(count=BATCH, memory=8, dim=16, in_batch="greedy")
    for state in (None, warm(policy, backend)):
        assert len(copies & set(picks(policy, backend, state, pool)[0])) == 1


def test_greedy_has_a_radius_where_candidates_are_tight_clusters_far_apart(backend):
    """Of each cluster one, also on devices without float64, where a matrix product sees no distance inside of one."""
    rng = np.random.default_rng(0)
    centres = 1000 * rng.normal(size=(2, 64))
    sketch = centres[np.arange(8) % 2] + 0.1 * rng.normal(size=(8, 64))
    sketch[2] = sketch[0]
    features = {"utility": [9, 8, 8.5, 1, 1, 1, 1, 1], "sketch": sketch, "length": np.ones(8)}
    features = {name: backend.array(values, "float32") for name, values in features.items()}
    policy = uds.UDS(count=2, alpha=0.0, memory=4, dim=64, in_batch="greedy")
    selection, state = policy.choose(None, features)
    assert backend.numpy(selection.indices).tolist() == [0, 1]
    inside = sketch.astype(np.float32).astype(float)
    apart = np.linalg.norm(inside[:, None] - inside[None], axis=2) + np.diag(np.full(8, np.inf))
    np.testing.assert_allclose(backend.numpy(state.nearest)[-8:], apart.min(axis=1), rtol=1e-5)


def test_the_in_batch_mean_is_added_to_diversity(backend):
    sample = samples(0)
    policy = uds.UDS(keep=0.5, memory=8, dim=16, in_batch="mean", length="none", centre="none")
    features = policy.examine(candidates(backend, sample))
    selection, _ = policy.choose(None, features)
    z = backend.numpy(features["sketch"]).astype(float)
    apart = np.linalg.norm(z[:, None] - z[None], axis=2)
    expected = apart.sum(axis=1) / (BATCH - 1)
    np.testing.assert_allclose(backend.numpy(selection.parts["diversity"]), expected, rtol=1e-3)


@pytest.mark.parametrize("b", [0.25, 1.0])
def test_utility_between_nuclear_and_frobenius_norm(backend, b):
    hidden, mask, labels, *_ = sample = samples(0)
    policy = uds.UDS(keep=0.5, memory=8, dim=16, frobenius=b, length="none", centre="none")
    scored = mask & (labels != -100)
    nuclear = reference.nuclear_norm(hidden @ WEIGHT.T, scored)
    root = reference.frobenius_norm(hidden @ WEIGHT.T, scored)
    expected = root if b == 1 else (1 - b) * nuclear + b * np.median(nuclear / root) * root
    features = policy.examine(candidates(backend, sample))
    assert ("utility" in features) is (b < 1)
    selection, _ = policy.choose(None, features)
    np.testing.assert_allclose(backend.numpy(selection.parts["utility"]), expected, rtol=3e-2 if low(backend) else 1e-3)


def test_a_budget_of_tokens_skips_what_does_not_fit(backend):
    _, mask, labels, *_ = sample = samples(0)
    length = (mask & (labels != -100)).sum(axis=1)
    policy = uds.UDS(tokens=9, memory=8, dim=16)
    indices, selection, _ = picks(policy, backend, None, sample)
    expected, left = [], 9
    for i in reference.best_first(backend.numpy(selection.scores), length):
        if length[i] <= left or not expected:
            expected.append(i)
            left -= length[i]
    assert indices == expected
    assert sum(length[indices]) <= 9


def test_a_reservoir_outlives_a_saved_state(backend):
    policy = uds.UDS(keep=0.5, memory=4, dim=16, replace="reservoir")
    straight: Any = warm(policy, backend, steps=5)
    state: Any = straight
    features = policy.examine(candidates(backend, samples(0)))
    state = uds.restore(policy.init(features), uds.flatten(state))
    for _ in range(3):
        _, state = policy.choose(state, features)
        _, straight = policy.choose(straight, features)
    np.testing.assert_array_equal(uds.flatten(state)["memory.rows"], uds.flatten(straight)["memory.rows"])
    assert state.memory.seen == 8 * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1.0}, "`alpha` must be 'auto', 'rank' or a number of at least 0"),
        ({"alpha": "best"}, "`alpha` must be"),
        ({"rows": "all"}, "`rows` must be one of 'labels', 'tokens'"),
        ({"length": "log"}, "`length` must be one of"),
        ({"centre": "column"}, "`centre` must be .none., .row. or an array"),
        ({"sketch": "count"}, "`sketch` must be one of"),
        ({"method": "fast"}, "`method` must be one of"),
        ({"memory": 0}, "`memory` must be a whole number of at least 1"),
        ({"dim": 0}, "`dim` must be a whole number of at least 1"),
        ({"weight": -0.5}, "`weight` must be a number of at least 0"),
        ({"weight": float("nan")}, "`weight` must be a number of at least 0"),
        ({"alpha": float("inf")}, "`alpha` must be"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0"),
        ({"dim": 10.5}, "`dim` must be a whole number of at least 1"),
        ({"frobenius": 1.5}, r"`frobenius` must be in \[0, 1\]"),
        ({"in_batch": "max"}, "`in_batch` must be one of"),
        ({"replace": "lifo"}, "`replace` must be one of"),
        ({"distance": "max"}, "`distance` must be one of"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
        ({"temperature": 1.0, "tokens": 5}, "`temperature` draws samples one by one"),
        ({"temperature": 1.0, "in_batch": "greedy"}, "`temperature` draws samples one by one"),
        ({"keep": 1.5}, "`keep` must be a fraction"),
    ],
)
def test_options_are_checked_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        uds.UDS(**options)


def test_examine_compiles_under_jax():
    jax = pytest.importorskip("jax")
    policy = uds.UDS(keep=0.5, dim=16)
    hidden, mask, labels = (jax.numpy.asarray(part) for part in samples(0)[:3])
    head = uds.Head(jax.numpy.asarray(WEIGHT.astype(np.float32)))

    def examine(hidden, mask, labels):
        return dict(policy.examine(uds.Candidates(head(hidden), mask=mask, labels=labels)))

    hidden = hidden.astype(jax.numpy.float32)
    compiled = jax.jit(examine)(hidden, mask, labels)
    eager = examine(hidden, mask, labels)
    for name in eager:
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-3, atol=1e-4)
