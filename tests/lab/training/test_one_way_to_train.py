"""What `uds compare` measures is what `uds train` does: the same losses, step by step."""

from dataclasses import replace

import pytest

from uds_adapters.lab.models import quiet
from uds_adapters.lab.train.job import Job
from uds_adapters.lab.training import run as training_run
from uds_adapters.lab.training.recording_trainer import RecordingMixin
from uds_adapters.lab.training.run import train_once
from uds_adapters.lab.training.settings import Settings
from uds_adapters.lab.training.trainer_options import TrainerOptions

SETTINGS = Settings(batch_size=8, steps=7, learning_rate=1e-3, eval_every=1)  # more steps than an epoch has
CASES = [("full", None), ("random", None), ("uds", None), ("uds", 2)]


def once(task, policy, folder, lora_rank, steps, trainer_options=None):
    """Losses of training and on held-out samples, the learning rates, and the samples that were trained on."""
    losses, rates = [], []

    def watched(self, *args, **kwargs):
        loss = step(self, *args, **kwargs)
        losses.append(float(loss))
        rates.append(self.lr_scheduler.get_last_lr()[0])
        return loss

    step = RecordingMixin.training_step
    settings = replace(SETTINGS, lora_rank=lora_rank, steps=steps)
    with pytest.MonkeyPatch.context() as patch, quiet():
        patch.setattr(RecordingMixin, "training_step", watched)
        result = train_once(
            task,
            policy=policy,
            seed=3,
            settings=settings,
            folder=folder,
            heldout=task.measure(),
            trainer_options=trainer_options,
        ).result
    return losses, [(one.step, one.loss) for one in result.evaluations], rates, result.selected


@pytest.mark.parametrize(("policy", "lora_rank"), CASES)
def test_compare_and_train_agree_to_the_bit(task, tmp_path, policy, lora_rank):
    compared = once(task, policy, tmp_path / "compare", lora_rank, 7)
    trained = once(task, policy, tmp_path / "train", lora_rank, 7, TrainerOptions())
    assert compared == trained
    assert (len(compared[0]), len(compared[1])) == (7, 8)
    assert compared[2][0] > compared[2][-1] > 0


@pytest.mark.parametrize(("policy", "lora_rank"), CASES)
def test_trl_agrees_but_for_the_rounding_of_its_fused_loss(task, tmp_path, policy, lora_rank):
    """TRL computes log-probabilities in chunks and sums them in another order; float32 keeps about seven digits."""
    pytest.importorskip("trl")
    compared = once(task, policy, tmp_path / "compare", lora_rank, 4)
    trained = once(task, policy, tmp_path / "train", lora_rank, 4, TrainerOptions(trl={"weight_decay": 0.0}))
    assert compared[0] == pytest.approx(trained[0], rel=2e-5)
    assert [loss for _, loss in compared[1]] == pytest.approx([loss for _, loss in trained[1]], rel=2e-5)
    assert compared[2:] == trained[2:]


def test_accumulated_batches_follow_one_another_in_the_same_order(task, tmp_path):
    *_, compared = once(task, "full", tmp_path / "compare", None, 4)
    *_, trained = once(task, "full", tmp_path / "train", None, 2, TrainerOptions(accumulate=2))
    assert [index for step in compared for index in step] == [index for step in trained for index in step]


def test_both_commands_enter_through_train_once():
    from uds_adapters.lab.comparison import runner
    from uds_adapters.lab.train import job

    assert runner.train_once is job.train_once is training_run.train_once
    assert Job.__dataclass_fields__["settings"].type == "Settings"
