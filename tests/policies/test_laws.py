"""Laws that every policy keeps, on every library. What each alone promises is in the test file of its family."""

import ast
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from every_policy import POLICIES
from pools import BATCH, EMBEDDINGS, VOCAB, WEIGHT, Pool, candidates, low, picks, samples, warm

import uds_core as uds

# Who is exempt from a law, by name, and why.
PADDED = {"reference": "scores padding, as the released code does"}
BY_PLACE = dict.fromkeys(
    [
        "random",
        "targeted",
        "targeted entropy",
        "fresh targeted",
        "fresh",
        "fresh logits",
        "fresh uds",
        "fresh predicted",
        "selectivebackprop",
        "selectivebackprop history",
        "lossema",
        "lossema trained",
        "lossdrop trained",
        "infobatch",
        "uds drawn",
        "predicted",
        "predicted uds",
        "progress",
    ],
    "its noise, or its order, belongs to places in the pool, not to samples",
)
DRAWN = [
    name for name in BY_PLACE if name not in ("lossdrop trained", "fresh uds", "fresh predicted", "fresh targeted")
]  # by a seed of their own
WITHIN_A_BATCH = {"greats": "its features are products between the samples of one batch"}
ALL_ROWS = {"reference": "scores all rows, so that no sample is empty"}
NOT_BEST = dict.fromkeys(
    [
        "uds greedy",
        "uds drawn",
        "selectivebackprop",
        "lossema",
        "lossema trained",
        "greats",
        "divbs",
        "rds",
        "predicted",
        "predicted uds",
        "progress",
        "fresh predicted",
        "targeted entropy",
        "fresh targeted",
    ],
    "what it keeps is drawn, or picked one after the other, not the highest scores",
)
KEEPS_ALL = {"full": "keeps all anyway"}
UNDIVIDED = {
    name: "its choice has no part to divide" for name, policy in POLICIES.items() if not policy.needs.divisible
}
NO_BUDGET = {"infobatch": "keeps what is not pruned"}
NO_LOGITS = {name: "looks at no logits" for name, policy in POLICIES.items() if not policy.needs.logits}
NO_LOGITS |= dict.fromkeys(["lossdrop trained", "lossema trained", "infobatch"], "reads none before training")


def marks(name, exempt, backend="numpy"):
    """Skipped, with the reason, if exempt; slow where JAX compiles, and for other forms on slow libraries."""
    skipped = [pytest.mark.skip(reason=exempt[name])] if exempt and name in exempt else []
    compiled = backend == "jax" and name not in ("uds", "entropy", "predicted")
    is_form = " " in name and backend in ("strict:device1", "strict:no_float64")
    return [*skipped, pytest.mark.slow] if compiled or is_form else skipped


def law(exempt: dict[str, str] | None = None):
    """Run for all policies on all libraries."""
    every = [
        pytest.param(
            *library.values, policy, id=f"{library.id}-{name}", marks=[*library.marks, *marks(name, exempt, library.id)]
        )
        for library in BACKENDS
        for name, policy in POLICIES.items()
    ]
    return pytest.mark.parametrize(("backend", "policy"), every, indirect=["backend"])


def is_one_of(policy, names):
    return any(policy is POLICIES[name] for name in names)


FAMILIES = sorted(Path(uds.__file__).parent.glob("policies/*.py"))


@pytest.mark.parametrize("file", [file for file in FAMILIES if file.stem != "__init__"], ids=lambda file: file.stem)
def test_no_policy_imports_a_sibling_policy(file):
    """What policies share is in files with a leading underscore."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    siblings = {node.module or "" for node in nodes if node.level == 1}
    assert all(name.startswith("_") for name in siblings), siblings


@pytest.mark.parametrize("name", sorted({*POLICIES} - {"full", "selectivebackprop history", "infobatch"}))
def test_without_a_budget_everything_is_kept_with_a_warning(name):
    policy, pool = replace(POLICIES[name], keep=None, count=None), samples(0)
    features = policy.examine(candidates(BACKENDS[0].values[0], pool))
    with pytest.warns(UserWarning, match=r"has no budget, so all candidates are kept: give `keep`"):
        selection, _ = policy.choose(None, features)
    assert sorted(BACKENDS[0].values[0].numpy(selection.indices).tolist()) == list(range(BATCH))
    replace(policy, keep=1.0).choose(None, features)  # warns of nothing


def test_the_warning_points_at_the_line_that_calls_choose():
    code = "import numpy as np, uds_core as uds\nuds.Random().choose(None, {'length': np.ones(2, np.float32)})\n"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.startswith("<string>:2: UserWarning: Random has no budget")


def test_every_policy_is_in_the_table():
    assert {uds.name_of(policy) for policy in POLICIES.values()} == set(uds.names())


@law(NO_BUDGET)
def test_k_distinct_indices_best_first(backend, policy):
    indices, selection, _ = picks(policy, backend, warm(policy, backend), samples(0))
    expected = {"full": BATCH, "uds tokens": 2}
    assert len(indices) == len(set(indices)) == next((expected[n] for n in expected if POLICIES[n] is policy), 3)
    scores = backend.numpy(selection.scores)
    assert scores.shape == (BATCH,)
    if not is_one_of(policy, NOT_BEST):
        assert (np.diff(scores[indices]) <= 0).all()
        assert min(scores[indices]) >= max(np.delete(scores, indices), default=-np.inf)
    assert (selection.weights is None) is (not policy.needs.weights)
    if selection.weights is not None:
        assert backend.numpy(selection.weights).shape == (len(indices),)
    assert all(backend.numpy(part).shape == (BATCH,) for part in selection.parts.values())
    assert all(backend.numpy(number).shape == () for number in selection.metrics.values())


@law(PADDED)
def test_padding_and_its_side_change_nothing(backend, policy):
    state, pool = warm(policy, backend), samples(0)
    expected, before, _ = picks(policy, backend, state, pool)
    for left, right in ((0, 4), (5, 0), (2, 3)):
        got, after, _ = picks(policy, backend, state, pool.padded(left, right))
        assert got == expected
        np.testing.assert_allclose(
            backend.numpy(after.scores),
            backend.numpy(before.scores),
            rtol=2e-2 if low(backend) else 1e-4,
            atol=1e-4,
        )


@law(BY_PLACE)
def test_shuffling_the_batch_shuffles_the_answer(backend, policy):
    lengths = np.array([5, 9, 3, 8, 4, 7])  # no two alike
    pool, order = samples(0, time=9), np.random.default_rng(1).permutation(BATCH)
    mask = np.arange(9) < lengths[:, None]
    pool = pool._replace(mask=mask, labels=np.where(mask, pool.labels % VOCAB, -100))
    state = warm(policy, backend, steps=6)
    expected, before, _ = picks(policy, backend, state, pool)
    got, after, _ = picks(policy, backend, state, pool.take(order))
    scores, shuffled = backend.numpy(before.scores), backend.numpy(after.scores)
    np.testing.assert_allclose(shuffled, scores[order], rtol=2e-2 if low(backend) else 1e-4, atol=1e-4)
    got = [int(order[i]) for i in got]
    if is_one_of(policy, ("full", "quadrants")):  # ties go by the index
        assert sorted(scores[got]) == sorted(scores[expected])
    else:
        assert got == expected


@law(WITHIN_A_BATCH)
def test_a_pool_is_a_pool_in_one_batch_or_in_several(backend, policy):
    pool, state = samples(0), warm(policy, backend)
    parts = [pool.take(where) for where in (slice(0, 2), slice(2, 5), slice(5, 6))]
    assert picks(policy, backend, state, *parts)[0] == picks(policy, backend, state, pool)[0]


@law(WITHIN_A_BATCH)
def test_batch_mates_have_no_influence_on_features(backend, policy):
    pool = samples(0)
    whole = policy.examine(candidates(backend, pool))
    alone = policy.examine(candidates(backend, pool.take(slice(2, 3))))
    assert set(alone) == set(whole)
    for name, feature in alone.items():
        np.testing.assert_allclose(
            backend.numpy(feature)[0], backend.numpy(whole[name])[2], rtol=2e-2 if low(backend) else 1e-4, atol=1e-4
        )


@law()
def test_targets_of_unscored_rows_are_not_looked_at(backend, policy):
    pool = samples(0)
    other = np.random.default_rng(5).integers(0, VOCAB, size=pool.labels.shape)
    leak = pool._replace(labels=np.where(pool.mask, pool.labels, other))
    state = warm(policy, backend)
    assert picks(policy, backend, state, leak)[0] == picks(policy, backend, state, pool)[0]


@law()
def test_the_same_again_and_inputs_unchanged(backend, policy):
    pool = samples(0)
    before = [part.copy() for part in pool]
    state = warm(policy, backend)
    frozen = {name: array.copy() for name, array in uds.flatten(state).items()}
    first, second = picks(policy, backend, state, pool), picks(policy, backend, state, pool)
    assert first[0] == second[0]
    for a, b in zip(before, pool, strict=True):
        np.testing.assert_array_equal(a, b)
    for name, array in uds.flatten(state).items():
        np.testing.assert_array_equal(array, frozen[name])
    for name, array in uds.flatten(first[2]).items():
        np.testing.assert_array_equal(array, uds.flatten(second[2])[name])


@law(UNDIVIDED)
def test_a_choice_whose_parts_are_prepared_is_the_same(backend, policy):
    state = warm(policy, backend)
    features = policy.examine(candidates(backend, samples(0)))
    parts = [policy.prepare(state, features, rows) for rows in (slice(0, BATCH // 2), slice(BATCH // 2, BATCH))]
    assert parts[0]
    whole, after = policy.choose(state, features)
    divided, after_parts = policy.choose(state, {**features, **uds.pool(parts)})
    assert backend.numpy(divided.indices).tolist() == backend.numpy(whole.indices).tolist()
    np.testing.assert_allclose(backend.numpy(divided.scores), backend.numpy(whole.scores), rtol=1e-5)
    assert uds.flatten(after_parts).keys() == uds.flatten(after).keys()


@law()
def test_a_saved_state_goes_on_as_if_never_saved(backend, policy):
    straight = saved = warm(policy, backend)
    for step in range(4):
        features = policy.examine(candidates(backend, samples(step)))
        saved = uds.restore(policy.init(features), uds.flatten(saved))
        (one, straight), (other, saved) = policy.choose(straight, features), policy.choose(saved, features)
        assert backend.numpy(one.indices).tolist() == backend.numpy(other.indices).tolist()
        np.testing.assert_array_equal(backend.numpy(one.scores), backend.numpy(other.scores))
    for name, array in uds.flatten(straight).items():
        np.testing.assert_array_equal(array, uds.flatten(saved)[name])


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_otherwise(name):
    pools = [samples(step) for step in range(8)]
    drawn = []
    for seed in (0, 0, 1):
        policy, state, chosen = replace(POLICIES[name], seed=seed), None, []
        for pool in pools:
            selection, state = policy.choose(state, policy.examine(candidates(BACKENDS[0].values[0], pool)))
            chosen.append(BACKENDS[0].values[0].numpy(selection.indices).tolist())
        drawn.append(chosen)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("name", DRAWN)
def test_each_step_draws_anew(name):
    """Of one and the same pool, and without what the policy learns between its steps."""
    policy, pool, backend = POLICIES[name], samples(0), BACKENDS[0].values[0]
    features = policy.examine(candidates(backend, pool))
    state = policy.init(features)
    drawn = set()
    for step in range(20):
        selection, _ = policy.choose(state._replace(step=step), features)
        drawn.add(tuple(backend.numpy(selection.indices).tolist()))
    assert len(drawn) > 5


@law()
def test_of_no_candidates_none_are_chosen(backend, policy):
    pool = samples(0)
    features = policy.examine(candidates(backend, pool))
    nothing = {name: column[:0, ...] for name, column in features.items()}
    for state in (None, warm(policy, backend)):
        selection, _ = policy.choose(state, nothing)
        assert backend.numpy(selection.indices).tolist() == []
        assert backend.numpy(selection.scores).shape == (0,)


@law()
def test_samples_of_no_rows_have_features(backend, policy):
    pool = samples(0)
    nothing = pool._replace(**{name: getattr(pool, name)[:, :0] for name in ("hidden", "mask", "labels", "tokens")})
    indices, selection, _ = picks(policy, backend, None, nothing)
    assert 0 < len(set(indices)) == len(indices)
    assert np.isfinite(backend.numpy(selection.scores)).all()


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("full", "greats")])
def test_options_may_be_numbers_of_numpy(name):
    """On the library that takes Python's alone; and a state goes from one kind to the other."""
    backend = BACKENDS[0].values[0]
    made = {"int": np.int64, "float": np.float64}
    plain = POLICIES[name]
    given = {field.name: getattr(plain, field.name) for field in fields(plain)}
    policy = replace(plain, **{k: made.get(type(v).__name__, lambda v: v)(v) for k, v in given.items()})
    state: Any = None
    for step in range(3):
        features = policy.examine(candidates(backend, samples(step)))
        selection, state = policy.choose(state, features)
        state = uds.restore(plain.init(features), uds.flatten(state))
        assert selection.scores.dtype == backend.xp.float32
    expected, _, _ = picks(plain, backend, warm(plain, backend), samples(0))
    assert picks(policy, backend, warm(policy, backend), samples(0))[0] == expected


@law()
def test_features_keep_library_device_and_float32(backend, policy):
    from array_api_compat import array_namespace, device

    features = policy.examine(candidates(backend, samples(0)))
    assert features["length"].shape == (BATCH,)
    for name, feature in features.items():
        assert feature.shape[0] == BATCH
        assert ("int" if name in ("id", "ngrams") else "float32") in str(feature.dtype)
        assert device(feature) == device(backend.array([0.0], "float32"))
        assert array_namespace(feature) is array_namespace(backend.array([0.0], "float32"))


@law()
def test_dense_and_head_choose_alike(backend, policy):
    state = warm(policy, backend)
    assert picks(policy, backend, state, samples(0), dense=True)[0] == picks(policy, backend, state, samples(0))[0]


@law(KEEPS_ALL | NO_BUDGET)
def test_more_than_there_are_is_all_of_them(backend, policy):
    greedy = replace(policy, keep=None, count=10)
    indices, _, _ = picks(greedy, backend, warm(greedy, backend), samples(0))
    assert sorted(indices) == list(range(BATCH))


@law(KEEPS_ALL | ALL_ROWS)
def test_an_empty_sample_is_not_chosen_while_another_can_be(backend, policy):
    pool = samples(0)
    pool.mask[[0, 3]] = False
    pool.labels[[0, 3]] = -100
    indices, selection, state = picks(policy, backend, warm(policy, backend), pool)
    assert not {0, 3} & set(indices)
    assert np.isfinite(backend.numpy(selection.scores)).all()
    nothing = pool._replace(mask=pool.mask & False, labels=pool.labels * 0 - 100)
    indices, _, state = picks(policy, backend, state, nothing)
    assert len(indices) == len(set(indices)) > 0


@law(NO_LOGITS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_last_and_never_remembered(backend, policy, bad):
    pool = samples(0)
    pool.hidden[1, 1, 2] = bad
    state = warm(policy, backend)
    indices, selection, state = picks(policy, backend, state, pool)
    assert 1 not in indices
    assert np.isnan(backend.numpy(selection.scores)[1])
    before = uds.flatten(state)
    with pytest.warns(UserWarning, match="keeps fewer samples than its budget allows, as too few have a score"):
        indices, _, state = picks(policy, backend, state, pool.take(slice(1, 2)))
    assert indices == []
    remembered = [name for name in before if name.endswith(("rows", "ids", "values"))]
    for name in remembered:
        np.testing.assert_array_equal(uds.flatten(state)[name], before[name])
    indices, _, _ = picks(policy, backend, state, samples(1))
    assert len(indices) > 1


@law(WITHIN_A_BATCH | KEEPS_ALL | NO_BUDGET)
def test_groups_keep_their_own_and_share_the_state(backend, policy):
    groups = np.array([0, 0, 0, 1, 1, 1])
    one = replace(policy, keep=None, count=1)
    state = warm(one, backend)
    indices, _, after = picks(one, backend, state, samples(0), groups=backend.array(groups, "int32"))
    assert sorted(groups[indices].tolist()) == [0, 1]
    assert set(uds.flatten(after)) == set(uds.flatten(state))


def test_the_pools_of_these_tests_are_what_they_seem():
    pool = samples(0)
    assert isinstance(pool, Pool)
    assert len(set(pool.ids.tolist())) == BATCH
    assert set(pool.ids) & set(samples(1000).ids)  # policies that remember samples see some again


ON_THE_HOST = dict.fromkeys(["rholoss ledger", "greats"], "looks things up, or takes candidates beside candidates")


@pytest.mark.parametrize(
    "policy", [pytest.param(POLICIES[name], id=name, marks=marks(name, ON_THE_HOST, "jax")) for name in POLICIES]
)
def test_examine_compiles_under_jax(policy):
    jax = pytest.importorskip("jax")
    pool = samples(0)
    dtypes = ("f4", "b1", "i4", "i4", "f4", "i4")
    arrays = [jax.numpy.asarray(part, dtype) for part, dtype in zip(pool, dtypes, strict=True)]
    table = jax.numpy.asarray(EMBEDDINGS, "f4")
    head = uds.Head(jax.numpy.asarray(WEIGHT, "f4"))

    def examine(hidden, mask, labels, ids, reference_loss, tokens):
        given = {"mask": mask, "labels": labels, "ids": ids, "reference_loss": reference_loss}
        given |= {"glance": uds.glance(tokens, labels, table, mask=mask), "ngrams": uds.ngram_sketch(tokens, mask=mask)}
        given["ngram_counts"] = uds.ngram_counts(tokens, mask=mask, buckets=64)
        return dict(policy.examine(uds.Candidates(head(hidden), **given)))

    compiled, eager = jax.jit(examine)(*arrays), examine(*arrays)
    assert set(compiled) == set(eager)
    for name in eager:
        np.testing.assert_allclose(compiled[name], eager[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("batch", "time"), [(1, 3), (1, 4), (2, 3)])
def test_pools_of_one_sample_follow_and_precede_larger_ones(name, batch, time):
    policy, backend, state = POLICIES[name], BACKENDS[0].values[0], None
    for step, number in enumerate((batch, 1, 4, 1)):
        features = policy.examine(candidates(backend, samples(step, batch=number, time=time)))
        selection, state = policy.choose(state, features)
        state = uds.restore(policy.init(features), uds.flatten(state))
        indices = backend.numpy(selection.indices).tolist()
        assert len(set(indices)) == len(indices) > 0
        assert number > 1 or indices == [0]
        assert {name: len(column) for name, column in selection.table().items()}["score"] == number
