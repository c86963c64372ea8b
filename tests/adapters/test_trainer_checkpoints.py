"""Checkpoints that were cut off: the Trainer resumes from the newest whole one, or the error names the folder."""

import json
import shutil
from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import loops  # noqa: E402
import spawned  # noqa: E402
from recorded_trainer import Recording, arguments  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.trainer_checkpoints import damage, steps  # noqa: E402

POLICY = uds.UDS(keep=0.25, memory=16, dim=16)


def trainer(folder, **options) -> Any:
    return Recording(
        model=tiny.llama(dropout=0.1),
        args=arguments(folder, **{"max_steps": 6, "save_strategy": "steps", "save_steps": 2, **options}),
        train_dataset=tiny.examples(96),
        data_collator=tiny.collate,
        policy=POLICY,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of six steps with a checkpoint every two, and what it chose."""
    folder = tmp_path_factory.mktemp("finished")
    run = trainer(folder)
    run.train()
    return folder, run.picks


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "run")


def cut(file, size=None):
    """Leave the beginning of a file, half of it by default."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2 if size is None else size])


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "uds.safetensors", "trainer_state.json")


@pytest.mark.parametrize("size", [None, 0, 1, 100], ids=["half", "empty", "byte", "begun"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_was_cut_off_is_named(folder, name, size):
    checkpoint = folder / "checkpoint-4"
    assert damage(checkpoint) == ""
    cut(checkpoint / name, size)
    assert damage(checkpoint) == f"{name} was cut off or damaged"


def test_weights_in_parts_are_whole_with_all_of_them(folder):
    checkpoint = folder / "checkpoint-4"
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    assert damage(checkpoint) == "model-2.safetensors is missing"
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "model-2.safetensors")
    assert damage(checkpoint) == ""
    cut(index)
    assert damage(checkpoint) == "model.safetensors.index.json was cut off or damaged"


def test_checkpoints_are_listed_by_step(folder):
    (folder / "checkpoint-x").mkdir()
    (folder / "checkpoint-9").write_text("no folder")
    assert list(steps(folder)) == [6, 4, 2]
    assert steps(folder / "none") == {}


@pytest.mark.parametrize("name", ["model.safetensors", "rng_state.pth", "trainer_state.json", "all but the weights"])
def test_a_run_is_resumed_from_the_newest_whole_checkpoint(finished, folder, name):
    """As a kill leaves it, at any file; the run ends as it would have without the kill."""
    if name in FILES:
        cut(folder / "checkpoint-6" / name)
    else:
        for file in FILES[1:]:
            (folder / "checkpoint-6" / file).unlink()
    run = trainer(folder)
    with pytest.warns(UserWarning, match=r"checkpoint-6 was not written to its end .* resumed from .*checkpoint-4"):
        run.train(resume_from_checkpoint=True)
    assert run.picks == finished[1][4:]
    assert same_state(folder / "checkpoint-6", finished[0] / "checkpoint-6")


def same_state(folder, other):
    for name in ("model.safetensors", "uds.safetensors"):
        found, expected = load_file(folder / name), load_file(other / name)
        assert found.keys() == expected.keys()
        assert all(bits(found[key]) == bits(expected[key]) for key in found)
    return True


def bits(tensor):
    return tensor.numpy().tobytes()


def test_whole_checkpoints_are_resumed_as_without_selection(finished, folder):
    shutil.rmtree(folder / "checkpoint-6")
    for given in (True, str(folder / "checkpoint-4"), folder / "checkpoint-4"):
        run = trainer(folder)
        run.train(resume_from_checkpoint=given)
        assert run.picks == finished[1][4:]
        shutil.rmtree(folder / "checkpoint-6")
    for given in (None, False):
        run = trainer(folder)
        run.train(resume_from_checkpoint=given)
        assert run.picks == finished[1]


def test_a_checkpoint_that_was_named_and_cut_off_is_an_error(folder):
    checkpoint = folder / "checkpoint-6"
    (checkpoint / "trainer_state.json").unlink()
    with pytest.raises(
        ValueError, match=rf"trainer_state.json is missing\): delete {checkpoint}, and resume from .*-4"
    ):
        trainer(folder).train(resume_from_checkpoint=str(checkpoint))


def test_without_a_whole_checkpoint_the_error_names_what_to_delete(folder):
    for checkpoint in steps(folder).values():
        (checkpoint / "trainer_state.json").unlink()
    for given in (True, str(folder / "checkpoint-2")):
        with pytest.raises(ValueError, match=r"delete .*checkpoint-2.*, and start without `resume_from_checkpoint`"):
            trainer(folder).train(resume_from_checkpoint=given)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(ValueError, match="No valid checkpoint found"):  # the Trainer's own error
        trainer(folder).train(resume_from_checkpoint=True)


def test_a_run_that_is_finished_trains_one_more_step(finished, folder):
    """As the Trainer does without selection; the documentation says so."""
    run = trainer(folder)
    run.train(resume_from_checkpoint=True)
    assert len(run.picks) == 1
    assert run.state.global_step == 7


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_processes_agree_on_the_newest_checkpoint_that_is_whole_on_all(tmp_path, rank):
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "dropout": 0.1}
    whole = spawned.all_well(spawned.run(loops.trainer, 2, tmp_path, **options))
    checkpoint = tmp_path / "checkpoint-3"
    (checkpoint / f"rng_state_{rank}.pth").unlink()
    assert [damage(checkpoint, rank=one) for one in range(3)] == [
        f"rng_state_{one}.pth is missing" if one == rank else "" for one in range(3)
    ]
    resumed = spawned.all_well(spawned.run(loops.trainer, 2, tmp_path, resume=True, **options))
    for one, other in zip(resumed, whole, strict=True):
        assert one["picks"] == other["picks"][2:]
        assert one["memory"] == other["memory"]
        assert torch.equal(one["parameters"], other["parameters"])
