"""Samples without a score are not trained, fewer are trained instead, and what is not finite is reported."""

import warnings
from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import loops  # noqa: E402
import spawned  # noqa: E402
import unscored  # noqa: E402
from recorded_trainer import Fed, Gradients, arguments  # noqa: E402
from unscored import LongestUpTo, rows, run  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402
from uds_adapters.transformers import UDSTrainerMixin  # noqa: E402


def test_a_micro_batch_without_scores_is_skipped(tmp_path):
    options = {"per_device_train_batch_size": 3, "max_steps": 1, "include_num_input_tokens_seen": "all"}
    data = rows(5, 9, 7, 13, 21, 15, 3, 17, 11)  # of the second none, of the third two
    trainer, got = run(tmp_path, data, gradient_accumulation_steps=3, **options)
    fed = [tiny.collate([data[1], data[2]]), tiny.collate([data[6], data[8]])]
    seen = Gradients()
    options |= {"gradient_accumulation_steps": 2}
    stock = Fed(model=tiny.llama(), args=arguments(tmp_path, **options), batches=fed, callbacks=[seen])
    stock.train()
    torch.testing.assert_close(got.steps[0], seen.steps[0], rtol=1e-5, atol=1e-8)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(stock.state.log_history[0]["loss"], rel=1e-6)
    assert trainer.state.num_input_tokens_seen == stock.state.num_input_tokens_seen


def test_a_step_without_scores_changes_nothing(tmp_path):
    class Weights(transformers.TrainerCallback):
        def __init__(self):
            self.steps = []

        def on_step_end(self, args, state, control, model=None, **_):
            assert model is not None
            self.steps.append(loops.flat_weights(model))

    weights = Weights()
    data = rows(5, 9, 20, 21, 6, 8)
    run(tmp_path, data, callbacks=[weights], per_device_train_batch_size=2, max_steps=3)
    first, second, third = weights.steps
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


def test_a_training_step_of_ones_own_sees_only_batches_with_samples(tmp_path):
    seen = []

    class Above(unscored.Recording):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.append(("above", len(inputs["labels"])))
            return super().training_step(model, inputs, *args, **kwargs)

    class Below(transformers.Trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            seen.append(("below", len(inputs["labels"])))
            return super().training_step(model, inputs, *args, **kwargs)

    class Over(UDSTrainerMixin, Below):
        pass

    options: Any = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 1}
    for cls in (Above, Over):
        run(tmp_path, rows(5, 9, 7, 6), cls=cls, scope="step", **options)
    assert seen == [("above", 1), ("above", 1), ("below", 1), ("below", 1)]


def test_a_scaler_sees_gradients_where_nothing_is_chosen(tmp_path):
    class Scaled(unscored.Recording):
        def create_accelerator_and_postprocess(self):
            super().create_accelerator_and_postprocess()
            self.accelerator.scaler = torch.amp.GradScaler("cpu")

    _, seen = run(tmp_path, rows(19, 21), cls=Scaled, per_device_train_batch_size=2, max_steps=1)
    assert len(seen.steps[0]) == loops.flat_weights(tiny.llama()).numel()
    assert not seen.steps[0].any()


def test_a_loop_without_scores():
    select = BatchSelector(tiny.llama(), LongestUpTo())
    without, some = tiny.collate(rows(20, 21)), tiny.collate(rows(5, 20))
    assert select.select_step([without]) == ([], 0)
    with pytest.raises(ValueError, match="no sample of this batch can be chosen, as the scores of all are NaN"):
        select(without)
    assert [len(batch["labels"]) for batch in select.iterate([without, some, without])] == [1]
    (chosen,), tokens = select.select_step([without, some], scope="micro")
    assert chosen["attention_mask"].sum(1).tolist() == [5]
    assert tokens == 4
    assert select.trained_by == [(True,)]


@pytest.mark.parametrize("mode", ["step", pytest.param("micro", marks=pytest.mark.slow)])
def test_a_process_without_scores_takes_part_without_changing_anything(tmp_path, mode):
    found = spawned.all_well(spawned.run(unscored.one_rank_without, 2, tmp_path, mode=mode))
    fed = [tiny.collate([one]) for one in rows(5, 9)]
    seen = Gradients()
    options: Any = {"gradient_accumulation_steps": 2, "max_steps": 1}
    stock = Fed(model=tiny.llama(), args=arguments(tmp_path, **options), batches=fed, callbacks=[seen])
    stock.train()
    for one in found:
        got = one["gradient"]
        torch.testing.assert_close(got, seen.steps[0], rtol=1e-5, atol=1e-8)
        assert one["loss"] == pytest.approx(stock.state.log_history[0]["loss"], rel=1e-6)


# losses and weights after a step


class Infinite(transformers.TrainerCallback):
    """Makes a gradient infinite before one optimizer step."""

    def __init__(self, step):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        assert model is not None
        if state.global_step + 1 == self.step:
            model.lm_head.weight.grad.fill_(float("inf"))


def test_weights_that_are_not_finite_are_told_of_at_their_step(tmp_path):
    steps = []

    class Steps(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.append([str(one.message) for one in reported])

    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        options: Any = {"max_steps": 4, "optim": "sgd", "callbacks": [Infinite(2), Steps()]}
        run(tmp_path, tiny.examples(96), policy=uds.Longest(count=2), **options)
    assert steps[0] == []
    assert len(steps[1]) == 1
    assert "after step 2 1 weights of the model are not finite, such as 'lm_head.weight'" in steps[1][0]
    assert len(steps[2]) == 2
    assert "the loss of step 3 is not finite" in steps[2][1]
    assert steps[3] == steps[2]


def test_a_loss_that_is_not_finite_is_told_of_once(tmp_path):
    data = tiny.examples(32)
    for one in data[8:]:
        one["input_ids"][0] = loops.BROKEN
    model = loops.broken_model()
    model.model.embed_tokens.weight.requires_grad = False
    with pytest.warns(UserWarning, match="not finite") as reported:
        run(tmp_path, data, policy=uds.Longest(count=2), model=model, max_steps=3)
    assert [str(one.message)[:18] for one in reported] == ["the loss of step 2", "after step 2 20 we"]
