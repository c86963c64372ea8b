"""A head that trains, prepared again only when it has moved by more than the tolerance."""

import copy
import math
from typing import Any

import architectures
import loops
import numpy as np
import pytest
import spawned
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scoring import Recorded, check, examine

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters.scoring import prepared_head  # noqa: E402
from uds_adapters.scoring.prepared_head import HEAD_TOLERANCE, PreparedHead  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

seeds = st.integers(0, 2**32 - 1)


def move(model, size, *, seed=0):
    """Move the head by `size`, relatively."""
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight.dtype)
        weight.add_(change * (size * weight.norm() / change.norm()))


def begin(prepared, weight, bias=None) -> Any:
    """What a pass of the reader does."""
    movement = prepared.movement(weight, bias)
    return prepared.head(weight, bias, 1.0, None if movement is None else tuple(movement.tolist()))


# movement


@given(seed=seeds, vocab=st.sampled_from([1, 7, 200]), size=st.floats(1e-6, 10.0), bias=st.booleans())
def test_the_movement_is_the_relative_distance_in_the_frobenius_norm(seed, vocab, size, bias):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(size=(vocab, 5)), rng.normal(size=(vocab, 5))
    after = before + size * after
    prepared = PreparedHead(0.1)
    sides = [torch.tensor(x, dtype=torch.float32) for x in (before, after)]
    weights = [(side[:, :4], side[:, 4]) if bias else (side[:, :4], None) for side in sides]
    assert prepared.movement(*weights[0]) is None
    begin(prepared, *weights[0])
    columns = 5 if bias else 4
    expected = np.linalg.norm((after - before)[:, :columns]) / np.linalg.norm(before[:, :columns])
    movement = prepared.movement(*weights[1])
    assert movement is not None
    np.testing.assert_allclose(movement, [expected] * 2, rtol=1e-3, atol=1e-7)


def test_of_a_large_head_some_rows_are_measured():
    weight = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    prepared = PreparedHead(0.1)
    begin(prepared, weight)
    for seed in range(5):
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        movement: Any = prepared.movement(weight + 1e-3 * change, None)
        assert movement.tolist() == pytest.approx([1e-3 * float(change.norm() / weight.norm())] * 2, rel=0.1)


# reuse


@given(
    sizes=st.lists(st.sampled_from([0.0, 1e-4, 3e-3, 8e-3, 0.02, 0.3]), min_size=1, max_size=12),
    tolerance=st.sampled_from([0.01, 0.05]),
)
def test_derived_values_are_never_of_a_head_further_away_than_the_tolerance(sizes, tolerance):
    """Model-based: which weight each head was derived from, against the rule in words. Of a small vocabulary."""
    weight = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    prepared, hidden = PreparedHead(tolerance), torch.eye(4)[None]
    base, steps, prepares = None, 0, True
    for number, size in enumerate([0.0, *sizes]):
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        weight = weight + change * (size * weight.norm() / change.norm())
        head = begin(prepared, weight)
        moved = math.inf if base is None else float((weight - base).norm() / base.norm())
        if base is not None and size == 0.0:
            pass
        elif prepares and moved <= tolerance:
            steps += 1
        else:
            prepares = base is None or steps * tolerance >= 2 * moved
            base, steps = weight, 1
        assert head.frozen is prepares
        assert head.weight is weight  # what is read row by row is of the weight as it is
        source = base if prepares else weight
        expected = torch.linalg.svdvals(source).sum()
        np.testing.assert_allclose(uds.nuclear_norm(head(hidden))[0], expected, rtol=1e-5)


@given(
    sizes=st.lists(st.sampled_from([0.0, 1e-4, 3e-3, 8e-3, 0.02, 0.3]), min_size=1, max_size=12),
    every=st.booleans(),
)
def test_a_large_vocabulary_is_corrected_by_some_rows_and_prepared_when_far_away(sizes, every):
    """Model-based. Where the rows are all, corrected factors are exact."""
    vocab, tolerance = 60, 0.01
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_head, "_SMALL", vocab)
        patch.setattr(prepared_head, "_ROWS", vocab if every else 40)
        weight = torch.randn(vocab, 4, generator=torch.Generator().manual_seed(0))
        prepared, hidden, sketch = (
            PreparedHead(tolerance),
            torch.eye(4)[None],
            uds.PairedSketch(time=4, vocab=vocab, dim=8),
        )
        base, lately, steps, prepares, counts = None, weight, 0, True, [0, 0]
        for number, size in enumerate([0.0, *sizes]):
            change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
            weight = weight + change * (size * weight.norm() / change.norm())
            movement = prepared.movement(weight, None)
            moved, late = (math.inf, math.inf) if movement is None else movement.tolist()
            head = begin(prepared, weight)
            if base is not None and size == 0.0:
                pass
            elif prepares and moved <= 10 * tolerance:
                steps += 1
                if late > tolerance:
                    lately, counts = weight, [counts[0], counts[1] + 1]
            else:
                prepares = base is None or steps * 10 * tolerance >= 2 * moved
                base, lately, steps, counts = weight, weight, 1, [counts[0] + prepares, counts[1]]
            assert [prepared.preparations, prepared.corrections] == counts
            assert head.frozen is prepares
            assert head.weight is weight
            found, exact = uds.nuclear_norm(head(hidden))[0], torch.linalg.svdvals(lately if prepares else weight).sum()
            np.testing.assert_allclose(found, exact, rtol=1e-4 if every else 0.05)
            expected = sketch(hidden @ (lately if prepares else weight).T)
            np.testing.assert_allclose(sketch(head(hidden)), expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_moves_little_is_derived_once():
    model, batch = tiny.llama(tied=True), tiny.batch(4)
    scorer, seen = Scorer(model, head_tolerance=0.01), Recorded()
    features = []
    for _ in range(4):
        features.append(examine(scorer, batch, seen))
        move(model, 2e-3, seed=len(features))
    assert all(head.factor is seen.heads[0].factor for head in seen.heads)
    assert all(head.frozen for head in seen.heads)
    move(model, 0.02)
    check(examine(scorer, batch, seen), model, batch)
    assert seen.heads[-1].factor is not seen.heads[0].factor


@pytest.mark.parametrize("name", ["maxloss", "entropy", "maxgrad"])
def test_what_is_read_row_by_row_is_of_the_head_as_it_is(name):
    model, batch = tiny.llama(), tiny.batch(4)
    scorer, policy = Scorer(model, head_tolerance=0.5), uds.make_policy(name, keep=0.5)
    examine(scorer, batch, uds.UDS(dim=16))
    move(model, 0.1)
    found, expected = examine(scorer, batch, policy), examine(Scorer(model, head_tolerance=0.0), batch, policy)
    for feature, values in expected.items():
        np.testing.assert_allclose(found[feature], values, rtol=1e-4, err_msg=feature)


def test_a_tolerance_of_zero_is_preparation_in_each_call_to_the_bit():
    model, batch = tiny.llama(), tiny.batch(4)
    policy, scorer, seen = uds.UDS(dim=16), Scorer(model, head_tolerance=0.0), Recorded()
    for _ in range(3):
        found = examine(scorer, batch, policy)
        examine(scorer, batch, seen)
        head = seen.heads[-1]
        assert not head.frozen
        assert head.factor_by == "qr"
        alone = examine(Scorer(model, head_tolerance=0.0), batch, policy)
        assert all(torch.equal(found[name], alone[name]) for name in alone)
        move(model, 1e-4)


def test_where_the_head_moves_fast_each_call_is_one_of_its_own():
    model, batch = tiny.llama(), tiny.batch(4)
    policy, scorer, exact = uds.UDS(dim=16), Scorer(model), Scorer(model, head_tolerance=0.0)
    seen = Recorded()
    examine(scorer, batch, policy)
    for seed in range(3):
        move(model, 2 * HEAD_TOLERANCE, seed=seed)
        found, expected = examine(scorer, batch, policy), examine(exact, batch, policy)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        examine(scorer, batch, seen)
    assert not any(head.frozen for head in seen.heads)
    move(model, HEAD_TOLERANCE / 4)  # slow again: from now on it pays
    examine(scorer, batch, seen)
    assert seen.heads[-1].frozen


def test_micro_batches_of_one_step_are_one_step():
    model, batch = tiny.llama(), tiny.batch(4)
    scorer, twice = Scorer(model), Scorer(model)
    counts = []
    for _ in range(3):
        examine(scorer, batch)
        for _ in range(2):
            examine(twice, batch)
        counts.append([one._reader.prepared._steps for one in (scorer, twice)])
        move(model, 1e-4)
    assert counts == [[1, 1], [2, 2], [3, 3]]


def test_no_more_is_asked_of_the_device_than_without(monkeypatch):
    model, batch = tiny.llama(), tiny.batch(4)
    asked: list[str] = []
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__bool__", "__int__"):
        own = getattr(torch.Tensor, name)

        def record(self, *args, own=own, name=name, **kwargs):
            asked.append(name)
            return own(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, record)
    numbers = []
    for tolerance in (0.0, 0.01):
        scorer = Scorer(model, head_tolerance=tolerance)
        examine(scorer, batch)
        move(model, 1e-4)
        asked.clear()
        examine(scorer, batch)
        numbers.append(len(asked))
    assert numbers[1] <= numbers[0]


@pytest.mark.filterwarnings("ignore:the model soft-caps its logits")
@pytest.mark.parametrize("softcap", ["exact", "ignore"])
@pytest.mark.parametrize("name", ["Gemma2", "Cohere"])
def test_caps_scales_and_half_precision(name, softcap):
    model, batch = architectures.TABLE[name].build().to(torch.bfloat16), tiny.batch(4)
    scorers = [Scorer(model, softcap=softcap, head_tolerance=tolerance) for tolerance in (0.01, 0.0)]
    for scorer in scorers:
        examine(scorer, batch)
    move(model, 2e-3)
    found, expected = (examine(scorer, batch)["utility"] for scorer in scorers)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_a_head_with_an_adapter_is_computed_in_each_call():
    """Its effective weight would be out of date in losses too."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM")
    model, batch = peft.get_peft_model(tiny.llama(), config), tiny.batch(4)
    scorer, seen = Scorer(model, head_tolerance=0.5), Recorded()
    for _ in range(2):
        check(examine(scorer, batch, seen), model, batch)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
    assert not any(head.frozen for head in seen.heads)


@pytest.mark.parametrize("wrong", [-0.1, math.inf, math.nan, "0.1", True, None])
def test_a_tolerance_that_is_none_is_an_error(wrong):
    with pytest.raises(ValueError, match="`head_tolerance` must be a number of at least 0"):
        BatchSelector(tiny.llama(), uds.UDS(keep=0.5), head_tolerance=wrong)


# resuming


def run(model, select, steps, *, save=None) -> Any:
    """A loop, and what a checkpoint after step `save` would hold."""
    optimizer, saved = torch.optim.SGD(model.parameters(), lr=0.02), None
    for step in steps:
        model(**select(tiny.batch(6, seed=step))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == save:
            saved = copy.deepcopy((model.state_dict(), select.state_dict()))
    return saved


@pytest.mark.parametrize("large", [False, True])
def test_a_run_resumes_bit_for_bit_without_the_factor(monkeypatch, large):
    """`large`: as a large vocabulary, whose factor is corrected in between."""
    if large:
        monkeypatch.setattr(prepared_head, "_SMALL", 0)
        monkeypatch.setattr(prepared_head, "_ROWS", 20)
    make = lambda model: BatchSelector(model, uds.UDS(keep=0.5, dim=16), head_tolerance=0.03 if large else 0.2)  # noqa: E731
    model, again = tiny.llama(tied=True), tiny.llama(tied=True, seed=1)
    select = make(model)
    weights, state = run(model, select, range(8), save=4)
    again.load_state_dict(weights)
    resumed: Any = make(again)
    resumed.load_state_dict(state)
    run(again, resumed, range(5, 8))
    assert loops.steps_served(select) == 3
    prepared = resumed._batch_scorer._scorer._reader.prepared
    assert prepared.preparations == 1
    assert (prepared.corrections > 0) is large
    found, expected = resumed.state_dict(), select.state_dict()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert not any("factor" in name or "head" in name for name in expected)
    for got, straight in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(got, straight)


# several processes


@pytest.mark.parametrize("job", [loops.plain, pytest.param(loops.fsdp, marks=pytest.mark.slow)], ids=["DDP", "FSDP"])
def test_all_processes_prepare_in_the_same_step(tmp_path, job):
    options: dict[str, Any] = {"ranks": "global", "steps": 9, "head_tolerance": 0.06}
    found = spawned.all_well(spawned.run(job, 2, tmp_path, **options))
    served = found[0]["served"]
    assert served == found[1]["served"] == spawned.all_well(spawned.run(job, 1, tmp_path, **options))[0]["served"]
    assert served.count(1) > 1
    assert max(served) > 2


def test_a_checkpoint_that_one_process_writes_is_one_for_all(tmp_path):
    """The others score again in the step after it, so that a resumed run does the same to the bit."""
    options: dict[str, Any] = {"ranks": "global", "steps": 5, "head_tolerance": 0.5}
    straight = spawned.all_well(spawned.run(loops.plain, 2, tmp_path, save=3, **options))
    resumed = spawned.all_well(spawned.run(loops.plain, 2, tmp_path, start=3, **options))
    assert [one["served"] for one in straight] == [[1, 2, 3, 1, 2]] * 2
    for one, again in zip(straight, resumed, strict=True):
        assert again["memory"] == one["memory"]
        assert again["picks"] == one["picks"][3:]
        assert again["last"] == one["last"]
