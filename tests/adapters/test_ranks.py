"""Processes that choose together: the same picks, the same gradient, the same memory; unequal shards and no hang."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import loops  # noqa: E402
import spawned  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.audit import read  # noqa: E402
from uds_adapters.batches.layout import CAUSAL  # noqa: E402
from uds_adapters.schedule import Schedule  # noqa: E402


def run(world, folder, job=loops.plain, **options) -> list[Any]:
    return spawned.all_well(spawned.run(job, world, folder, **options))


def far(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_global_is_one_process_with_the_whole_pool(tmp_path, accumulation):
    """Picks, gradient and memory of 1, 2 and 4 processes."""
    alone = run(1, tmp_path, ranks="global", accumulation=accumulation)[0]
    for size in (2, 4):
        for found in run(size, tmp_path, ranks="global", accumulation=accumulation):
            assert found["picks"] == alone["picks"]
            assert [sum(one) for one in found["counts"]] == [4 * accumulation // size] * 3
            for got, expected in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, expected) < 1e-6
    micros = loops.pools(3, accumulation, 8)[0]
    examples = [example for micro in micros for example in micro]
    expected = loops.gradient_of([examples[i] for i in alone["picks"][0]])
    assert far(alone["gradients"][0], expected) < 1e-6


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_trainer_trains_what_one_process_would(tmp_path, accumulation):
    options = {"gradient_accumulation_steps": accumulation}
    alone = run(1, tmp_path, loops.trainer, **options)[0]
    data = loops.tiny.examples(96)
    expected = loops.gradient_of([data[i] for i in alone["picks"][0]])
    assert far(alone["gradients"][0], expected) < 1e-6
    for size in (2, 4):
        for found in run(size, tmp_path, loops.trainer, **options):
            assert found["picks"] == alone["picks"]
            assert found["counts"] == [[4 // size] * accumulation] * 3
            for got, one in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, one) < 1e-6
            assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "accumulation"), [("padded", 1), ("padded", 2), ("padding_free", 2)])
def test_trl_trains_what_one_process_would(tmp_path, mode, accumulation):
    pytest.importorskip("trl", reason="needs TRL")
    options = {"mode": mode, "accumulation": accumulation, "imports": "trl.trainer.sft_trainer"}
    alone = run(1, tmp_path, loops.trl, **options)[0]
    for size in (2, 4):
        for found in run(size, tmp_path, loops.trl, **options):
            assert found["picks"] == alone["picks"]
            for got, one in zip(found["gradients"], alone["gradients"], strict=True):
                assert far(got, one) < 1e-6


MODES = {
    "rank": {"ranks": "rank"},
    "rank, micro": {"ranks": "rank", "scope": "micro", "accumulation": 2},
    "global": {"ranks": "global"},
    "global, micro": {"ranks": "global", "scope": "micro", "accumulation": 2},
    "global, stay": {"ranks": "global", "rows": "stay"},
}


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow if "micro" in mode else ()) for mode in MODES]
)
def test_memories_are_the_same_to_the_bit_after_fifty_steps(tmp_path, mode, size):
    found = run(size, tmp_path, steps=50, **MODES[mode])
    assert len({one["memory"] for one in found}) == 1
    assert all(one["picks"] == found[0]["picks"] for one in found)
    assert found[0]["size"] == 16  # full, and many times over
    if mode in ("global", "global, micro"):
        assert found[0]["gathers"] <= 3 * 50 + 1  # two more where samples move
    else:
        assert found[0]["gathers"] == 50 + 1  # one a step, and one where the messages' size was agreed on
        assert len(set(found[0]["bytes"][1:])) == 1


@pytest.mark.parametrize("mode", ["rank", "global", "global, stay"])
def test_ranks_keep_as_many_as_they_should(tmp_path, mode):
    found = run(2, tmp_path, steps=8, **MODES[mode])
    counts = [[one["counts"][step][0] for one in found] for step in range(8)]
    if mode == "global, stay":  # an empty rank trains a blank sample
        owners = [[sum(i // 4 == rank for i in picks) for rank in range(2)] for picks in found[0]["picks"]]
        assert counts == [[max(1, number) for number in own] for own in owners]
        assert any(number != 2 for own in owners for number in own)
    else:
        assert counts == [[2, 2]] * 8
    if mode == "rank":
        assert all(sum(i < 4 for i in picks) == 2 for picks in found[0]["picks"])


@pytest.mark.parametrize("rows", ["move", "stay"])
def test_rows_that_move_or_stay_give_the_same_gradient(tmp_path, rows):
    """Also where a rank is left without a sample: one of four is chosen from, of four ranks."""
    policy = uds.MaxLoss(count=3)
    alone = run(1, tmp_path, ranks="global", policy=policy)[0]
    found = run(4, tmp_path, ranks="global", rows=rows, policy=policy)
    assert found[0]["picks"] == alone["picks"]
    for got, expected in zip(found[0]["gradients"], alone["gradients"], strict=True):
        assert far(got, expected) < 1e-6


@pytest.mark.parametrize("ranks", ["rank", "global"])
@pytest.mark.parametrize(("sizes", "world"), [([5, 3], 2), ([1, 2, 4, 1], 4)])
def test_unequal_batches_are_one_pool(tmp_path, ranks, sizes, world):
    found = run(world, tmp_path, ranks=ranks, sizes=sizes, policy=uds.UDS(**loops.POLICY))
    assert len({one["memory"] for one in found}) == 1
    assert all(torch.equal(one["gradients"][-1], found[0]["gradients"][-1]) for one in found)
    if ranks == "global":
        alone = run(1, tmp_path, ranks=ranks)[0]
        assert found[0]["picks"] == alone["picks"]
        assert far(found[0]["gradients"][0], alone["gradients"][0]) < 1e-6
    else:
        assert [one["counts"][0][0] for one in found] == [max(1, int(n / 2 + 0.5)) for n in sizes]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_global_resumes_on_any_number_of_ranks(tmp_path, before, after):
    straight = run(before, tmp_path, ranks="global", steps=8, save=3)[0]
    for found in run(after, tmp_path, ranks="global", steps=8, start=3):
        assert found["picks"] == straight["picks"][3:]
        if before == after:
            assert found["memory"] == straight["memory"]


@pytest.mark.parametrize("ranks", ["rank", "global"])
def test_the_trainer_resumes_to_the_bit(tmp_path, ranks):
    options = {"ranks": ranks, "max_steps": 8, "save_strategy": "steps", "save_steps": 3, "dropout": 0.1}
    straight = run(2, tmp_path, loops.trainer, **options)
    assert len(list((tmp_path / "checkpoint-3").glob("uds*"))) == 1
    for found, whole in zip(run(2, tmp_path, loops.trainer, resume="checkpoint-3", **options), straight, strict=True):
        assert found["picks"] == whole["picks"][3:]
        assert found["memory"] == whole["memory"]
        assert torch.equal(found["parameters"], whole["parameters"])


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_the_trainer_resumes_on_another_number_of_ranks(tmp_path, before, after):
    if transformers.__version__.startswith("4."):
        pytest.skip("this Trainer takes the batch size of a process from the checkpoint, and so other pools")
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    straight = run(before, tmp_path, loops.trainer, **options)[0]
    for found in run(after, tmp_path, loops.trainer, resume="checkpoint-3", **options):
        assert found["picks"] == straight["picks"][3:]
        assert far(found["parameters"], straight["parameters"]) < 1e-5


@pytest.mark.parametrize("policy", [uds.Random(keep=0.5, seed=3), uds.Longest(keep=0.5), uds.MaxLoss(keep=0.5)])
def test_any_policy_chooses_what_it_would_alone(tmp_path, policy):
    options = {"policy": policy, "ranks": "global", "accumulation": 2}
    alone = run(1, tmp_path, **options)[0]
    found = run(2, tmp_path, **options)
    assert [one["picks"] for one in found] == [alone["picks"]] * 2
    assert far(found[0]["gradients"][-1], alone["gradients"][-1]) < 1e-5


@pytest.mark.parametrize("ranks", ["rank", "global"])
def test_steps_that_do_not_select_train_all_where_they_are(tmp_path, ranks):
    options = {"schedule": Schedule(start_step=1, every=2), "ranks": ranks, "steps": 4}
    alone = run(1, tmp_path, **options)[0]
    for one in run(2, tmp_path, **options):
        assert one["counts"] == [[4], [2], [4], [2]]
        assert [picks is None for picks in one["picks"]] == [True, False, True, False]
        assert far(one["gradients"][0], alone["gradients"][0]) < 1e-6


@pytest.mark.parametrize("ranks", ["rank", "global"])
def test_each_rank_audits_its_own_candidates(tmp_path, ranks):
    found = run(2, tmp_path, ranks=ranks, audit=True)
    for rank, one in enumerate(found):
        rows = list(read(tmp_path / f"audit_{rank}.jsonl"))
        assert len(rows) == 12
        kept = [[row["position"] for row in rows if row["step"] == step and row["chosen"]] for step in range(3)]
        assert kept == one["here"] == [[i - 4 * rank for i in picks if i // 4 == rank] for picks in one["picks"]]


@pytest.mark.parametrize(
    ("ranks", "scope"), [("global", "micro"), ("rank", "micro"), ("rank", "step"), ("stay", "step")]
)
def test_the_trainer_in_every_mode(tmp_path, ranks, scope):
    options = {"ranks": ranks, "scope": scope, "gradient_accumulation_steps": 2}
    alone = run(1, tmp_path, loops.trainer, **options)[0]
    found = run(2, tmp_path, loops.trainer, **options)
    assert len({one["memory"] for one in found}) == 1
    assert all(torch.equal(one["parameters"], found[0]["parameters"]) for one in found)
    if ranks != "rank":  # noted are the last choices of a call, which is a whole step here, and a micro-batch alone
        assert found[0]["picks"] == (alone["picks"][1::2] if scope == "micro" else alone["picks"])
        assert far(found[0]["gradients"][0], alone["gradients"][0]) < 1e-6
    message = found[0]["log"][-1]["uds/gathered_bytes"]
    assert message > 2 * 8 * 4 * 16  # two ranks, eight candidates each, a sketch of 16 numbers
    assert found[0]["log"][-1]["uds/gathering_seconds"] > 0


def test_samples_behind_an_indexer_stay():
    from uds_adapters.selection.assignment import Assignment

    move: Any = {
        "move": True,
        "most": 1,
        "fill": False,
        "unscored": None,
        "indexer": lambda batch, _: batch,
        "layout": CAUSAL,
    }
    with pytest.raises(ValueError, match=r"`indexer` cannot be joined.*samples='stay'"):
        Assignment(torch.tensor([0]), None, [], None, **move)  # type: ignore[arg-type]


def test_groups_choose_apart(tmp_path):
    found = run(4, tmp_path, loops.grouped)
    assert [one["first"] for one in found] == [0, 0, 2, 2]
    assert found[0]["memory"] == found[1]["memory"] != found[2]["memory"] == found[3]["memory"]
    assert [one["picks"] for one in run(2, tmp_path, loops.grouped)] == [one["picks"] for one in found[:2]]


def pool_of_uds(step):
    generator = torch.Generator().manual_seed(step)
    sketch, utility = torch.randn(700, 32, generator=generator), torch.rand(700, generator=generator)
    return {"sketch": sketch, "utility": utility, "length": torch.ones(700)}


def pool_of_fresh(step):
    generator = torch.Generator().manual_seed(step)
    ngrams = torch.randint(0, 50, (700, 16), generator=generator, dtype=torch.int32)
    return {"ngrams": ngrams, "length": torch.ones(700)}


@pytest.mark.parametrize(
    ("policy", "features", "calls"),
    [
        (uds.UDS(keep=0.25, memory=300, dim=32), pool_of_uds, 3),
        (uds.Fresh(keep=0.25, memory=300, by="logits", threshold=0.9), pool_of_uds, 3),
        (uds.Fresh(keep=0.25, memory=300), pool_of_fresh, 3),
    ],
)
def test_the_work_of_a_choice_is_divided(tmp_path, policy, features, calls):
    """Six blocks of candidates: three on each of two processes."""
    found = run(2, tmp_path, loops.divided, policy=policy, features=features)
    assert found[0]["picks"] == found[1]["picks"]
    assert [one["prepared"] for one in found] == [[384] * calls, [316] * calls]


def test_a_process_that_fails_to_prepare_stops_all(tmp_path):
    policy = uds.UDS(keep=0.25, memory=300, dim=32)
    ours, theirs = spawned.run(loops.divided, 2, tmp_path, policy=policy, features=pool_of_uds, fails=2)
    assert isinstance(theirs, FloatingPointError)
    assert "rank 1: FloatingPointError: broken" in str(ours)
