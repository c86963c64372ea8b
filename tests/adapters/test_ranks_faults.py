"""Processes of which one has other data, fails, ends or dies: nothing hangs, and nothing wrong is trained."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import loops  # noqa: E402
import spawned  # noqa: E402

from uds_adapters.ranks import RankError, Ranks  # noqa: E402


def run(world, folder, job=loops.plain, **options) -> list[Any]:
    return spawned.run(job, world, folder, **options)


def well(*args, **options):
    return spawned.all_well(run(*args, **options))


@pytest.mark.parametrize("ranks", ["rank", "global"])
@pytest.mark.parametrize("spoil", [loops.without_targets, loops.half_broken])
def test_broken_samples_of_one_rank_are_not_trained(tmp_path, ranks, spoil):
    """Samples without a target, or whose logits are not finite."""
    model = loops.broken_model if spoil is loops.half_broken else None
    found = well(2, tmp_path, ranks=ranks, spoil=spoil, model=model)
    bad = {4, 5} if spoil is loops.half_broken else {4, 5, 6, 7}
    if ranks == "global" or spoil is loops.half_broken:
        assert not bad & set(found[0]["picks"][1])
    assert len({one["memory"] for one in found}) == 1
    for one in found:
        assert one["picks"] == found[0]["picks"]
        assert all(torch.isfinite(gradient).all() for gradient in one["gradients"])


def test_a_rank_of_broken_samples_trains_those_of_others(tmp_path):
    found = well(2, tmp_path, ranks="global", spoil=loops.all_broken, model=loops.broken_model)
    assert all(i < 4 for i in found[0]["picks"][1])
    assert [one["counts"][1] for one in found] == [[2], [2]]
    assert all(torch.isfinite(one["gradients"][1]).all() for one in found)


def test_a_rank_without_labels_is_an_error_on_all(tmp_path):
    for error in run(2, tmp_path, spoil=loops.without_labels):
        assert isinstance(error, RankError)
        assert "rank 0 has step 1, entries ['attention_mask', 'input_ids', 'labels']" in str(error)
        assert "rank 1 has step 1, entries ['attention_mask', 'input_ids']" in str(error)


def test_what_one_rank_cannot_read_is_an_error_on_all(tmp_path):
    first, second = run(2, tmp_path, spoil=loops.of_another_length)
    assert isinstance(first, RankError)
    assert "rank 1: ValueError: `batch['attention_mask']` must have shape" in str(first)
    assert type(second) is ValueError


@pytest.mark.parametrize("ranks", ["rank", "global"])
@pytest.mark.parametrize("numbers", [(3, 2), (2, 3), (2, 0)])
def test_all_stop_with_the_first_that_has_no_batch(tmp_path, numbers, ranks):
    found = well(2, tmp_path, loops.uneven, numbers=numbers, ranks=ranks)
    assert [one["done"] for one in found] == [min(numbers)] * 2
    assert len({one["memory"] for one in found}) == 1
    for rank, one in enumerate(found):
        lost = numbers[rank] > min(numbers)
        assert any("had no batch left" in text for text in one["warnings"]) is lost


def test_loaders_of_the_same_length_end_in_silence(tmp_path):
    found = well(2, tmp_path, loops.uneven, numbers=(2, 2))
    assert [(one["done"], one["warnings"]) for one in found] == [(2, []), (2, [])]


def test_a_loader_that_fails_is_an_error_on_all(tmp_path):
    first, second = run(2, tmp_path, loops.uneven, fail=(1, 1))
    assert isinstance(first, RankError)
    assert "rank 1: OSError: the disk is gone" in str(first)
    assert isinstance(second, OSError)


@pytest.mark.slow
def test_a_rank_that_leaves_without_a_word_is_an_error_in_time(tmp_path):
    first, second = run(2, tmp_path, loops.uneven, direct=True, patience=5, limit=60)
    assert isinstance(first, RuntimeError)
    assert second["done"] == 2


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_says_where(tmp_path):
    with pytest.raises(AssertionError, match=r"ranks \[0\] of 1 hung for 20 s\n(?s:.*) in waiting"):
        run(1, tmp_path, loops.waiting, limit=20)


def test_trainers_with_unequal_shards_refuse_at_the_first_step(tmp_path):
    options = {"accelerator_config": {"even_batches": False}, "max_steps": -1, "num_train_epochs": 1, "number": 20}
    for error in run(2, tmp_path, loops.trainer, **options):
        assert isinstance(error, RankError)
        assert "rank 0 has max_steps 3" in str(error)
        assert "rank 1 has max_steps 2" in str(error)


@pytest.mark.parametrize("ranks", ["rank", "global"])
@pytest.mark.parametrize("number", [40, 43])
def test_data_that_are_dispatched_are_chosen_from(tmp_path, ranks, number):
    """A stream that rank 0 reads and sends, twice through it, the last batch smaller."""
    options: dict[str, Any] = {"data": loops.FixedStream, "ranks": ranks, "max_steps": 8, "number": number}
    found = well(2, tmp_path, loops.trainer, **options)
    assert len({one["memory"] for one in found}) == 1
    assert len(found[0]["picks"]) == 8


def test_a_stream_that_each_rank_shards_is_chosen_from(tmp_path):
    config = {"accelerator_config": {"dispatch_batches": False}}
    found = well(2, tmp_path, loops.trainer, data=loops.Stream, max_steps=8, **config)
    assert len({one["memory"] for one in found}) == 1


@pytest.mark.parametrize("ranks", ["rank", "global"])
def test_a_killed_rank_ends_the_others_and_the_last_checkpoint_resumes(tmp_path, ranks):
    options = {"ranks": ranks, "max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    straight = well(2, tmp_path / "straight", loops.trainer, **options)
    first, second = run(2, tmp_path, loops.trainer, kill=(1, 4), **options)
    assert isinstance(first, RuntimeError)
    assert second is None  # dead
    resumed = well(2, tmp_path, loops.trainer, resume="checkpoint-3", **options)
    for one, whole in zip(resumed, straight, strict=True):
        assert one["picks"] == whole["picks"][3:]
        assert one["memory"] == whole["memory"]
        assert torch.equal(one["parameters"], whole["parameters"])


def test_options_are_checked():
    wrong: Any = "all"
    with pytest.raises(ValueError, match="`ranks` must be 'rank' or 'global', got 'all'"):
        Ranks(placement=wrong)
    with pytest.raises(ValueError, match="samples='stay' changes nothing with placement='rank'"):
        Ranks(samples="stay")
    assert (Ranks().size, Ranks().rank) == (1, 0)
