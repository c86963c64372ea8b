"""The Hugging Face Trainer with a policy: the gradient of a stock Trainer that was fed the chosen samples."""

import inspect
import json
import os
import re
from typing import Any
from unittest import mock

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from recorded_trainer import Fed, Gradients, Recording, arguments  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.schedule import Schedule  # noqa: E402
from uds_adapters.transformers import UDSTrainer, UDSTrainerMixin  # noqa: E402

POLICY = uds.UDS(keep=0.25, memory=16, dim=16)


OURS = ("scope", "selection")


def trainer(folder, *, policy: Any = POLICY, data=None, model=None, cls: Any = UDSTrainer, **options) -> Any:
    seen = Gradients()
    ours = {} if policy is None else {"policy": policy} | {n: options.pop(n) for n in OURS if n in options}
    return cls(
        model=tiny.llama() if model is None else model,
        args=arguments(folder, **options),
        train_dataset=tiny.examples(96) if data is None else data,
        data_collator=tiny.collate,
        callbacks=[seen],
        **ours,
    ), seen


@pytest.mark.parametrize(
    "policy", [POLICY, uds.MaxLoss(count=3), uds.Random(keep=0.5)], ids=["uds", "maxloss", "random"]
)
@pytest.mark.parametrize("scope", ["micro", "step"])
@pytest.mark.parametrize("accumulation", [1, 3, 4])
def test_gradient_is_that_of_a_stock_trainer_fed_the_chosen_samples(tmp_path, accumulation, scope, policy):
    options = {"gradient_accumulation_steps": accumulation, "max_steps": 1}
    chosen, got = trainer(tmp_path, cls=Recording, policy=policy, scope=scope, **options)
    chosen.train()
    seen = Gradients()
    stock = Fed(
        model=tiny.llama(),
        args=arguments(tmp_path, **options | {"gradient_accumulation_steps": len(chosen.kept)}),
        train_dataset=chosen.kept,
        callbacks=[seen],
        batches=chosen.kept,
    )
    stock.train()
    fewer = scope == "step" and isinstance(policy, uds.MaxLoss)  # three samples
    assert len(chosen.kept) == (min(3, accumulation) if fewer else accumulation)
    torch.testing.assert_close(got.steps[0], seen.steps[0], rtol=1e-6, atol=1e-8)
    assert chosen.state.log_history[0]["loss"] == pytest.approx(stock.state.log_history[0]["loss"], rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_gradient_is_that_of_the_token_mean(tmp_path, accumulation):
    chosen, got = trainer(tmp_path, cls=Recording, gradient_accumulation_steps=accumulation, max_steps=1)
    chosen.train()
    model, total, tokens = tiny.llama(), torch.zeros(()), 0
    for batch in chosen.kept:
        number = int((batch["labels"][:, 1:] != -100).sum())
        total, tokens = total + model(**batch).loss * number, tokens + number
    (total / tokens).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(got.steps[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("policy", [uds.UDS(keep=1.0, memory=8, dim=8), uds.Full()], ids=["uds", "full"])
def test_keeping_all_is_plain_training(tmp_path, policy):
    plain, _ = trainer(tmp_path, policy=None, cls=transformers.Trainer, max_steps=4, gradient_accumulation_steps=2)
    all_kept, _ = trainer(tmp_path, policy=policy, max_steps=4, gradient_accumulation_steps=2)
    losses = []
    for one in (plain, all_kept):
        one.train()
        losses.append([entry["loss"] for entry in one.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_samples_that_were_not_chosen_have_no_influence(tmp_path):
    data = tiny.examples(8, seed=3)
    recorded, got = trainer(tmp_path, cls=Recording, policy=uds.Longest(count=2), data=data, max_steps=1)
    recorded.train()
    kept = {
        tuple(row[mask == 1].tolist())
        for b in recorded.kept
        for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
    }
    changed = [
        one if tuple(one["input_ids"]) in kept else {"input_ids": [5] * len(one["input_ids"]), "labels": one["labels"]}
        for one in data
    ]
    assert sum(a is b for a, b in zip(data, changed, strict=True)) == 2
    other, also = trainer(tmp_path, policy=uds.Longest(count=2), data=changed, max_steps=1)
    other.train()
    assert torch.equal(got.steps[0], also.steps[0])


@pytest.mark.parametrize(("accumulation", "scope"), [(1, "micro"), (2, "micro"), (2, "step")])
def test_resuming_is_exact_to_the_bit(tmp_path, accumulation, scope):
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, "gradient_accumulation_steps": accumulation}

    def make():
        return trainer(tmp_path, cls=Recording, model=tiny.llama(dropout=0.1), scope=scope, **options)[0]

    straight = make()
    straight.train()
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    choices = accumulation if scope == "micro" else 1  # in a step
    assert resumed.picks == straight.picks[3 * choices :]
    assert len(resumed.picks) == 5 * choices
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for name, tensor in straight.selector.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(resumed.selector.state_dict()[name]))


def test_the_memory_matters_for_resuming(tmp_path):
    """Without its state the run goes elsewhere: the test above could fail."""
    policy = uds.UDS(keep=0.25, memory=16, dim=16, weight=4.0)
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, "policy": policy, "cls": Recording}
    straight, _ = trainer(tmp_path, **options)
    straight.train()
    (tmp_path / "checkpoint-3" / "uds.safetensors").unlink()
    resumed, _ = trainer(tmp_path, **options)
    with pytest.warns(UserWarning, match="the checkpoint has no selection state"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.picks != straight.picks[3:]


def test_a_damaged_checkpoint_is_an_error(tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, **options)[0].train()
    file = tmp_path / "checkpoint-1" / "uds.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut off or damaged"):
        trainer(tmp_path, **options)[0].train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_the_log_tells_of_the_selection(tmp_path):
    run, _ = trainer(tmp_path, max_steps=4, logging_steps=2, gradient_accumulation_steps=2)
    run.train()
    entries = [entry for entry in run.state.log_history if "loss" in entry]
    names = ("utility_mean", "diversity_mean", "alpha", "kept_tokens_fraction", "scoring_seconds", "scoring_share")
    assert len(entries) == 2
    for entry in entries:
        assert {f"uds/{name}" for name in names} <= set(entry)
        assert 0 < entry["uds/scoring_share"] < 1
        assert 0 < entry["uds/kept_tokens_fraction"] < 1
    json.dumps(run.state.log_history)


def test_the_batch_size_counts_candidates(tmp_path):
    run, _ = trainer(tmp_path, cls=Recording, per_device_train_batch_size=12, max_steps=3)
    run.train()
    assert [len(batch["labels"]) for batch in run.kept] == [3, 3, 3]  # 12 candidates x keep 0.25
    tokens = sum(batch["input_ids"].numel() for batch in run.kept)
    assert tokens > 0


def test_evaluation_is_not_selected_from(tmp_path):
    data = tiny.examples(10, seed=9)
    losses = []
    for cls, policy in ((UDSTrainer, POLICY), (transformers.Trainer, None)):
        run, _ = trainer(tmp_path, cls=cls, policy=policy)
        losses.append(run.evaluate(data)["eval_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "options",
    [
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"label_smoothing_factor": 0.1},
        {"neftune_noise_alpha": 5.0},
        {"dataloader_num_workers": 1},
        {"torch_compile": True, "torch_compile_backend": "eager"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.filterwarnings("ignore")  # of worker processes and the compiler
@mock.patch.dict(os.environ)  # where the Trainer writes its compiler down, for all that come after it
def test_the_first_picks_are_the_same_under_the_trainers_options(tmp_path, options):
    picks = []
    for extra in ({}, options):
        run, _ = trainer(tmp_path, cls=Recording, max_steps=1, **extra)
        run.train()
        picks.append(run.picks)
        assert not run.selector._batch_scorer._scorer._warned  # the logits were never made
    assert picks[0] == picks[1]


def test_any_trainer_takes_the_mixin(tmp_path):
    class Mine(transformers.Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            self.seen = len(inputs["labels"])
            return super().compute_loss(model, inputs, *args, **kwargs)

    class Selecting(UDSTrainerMixin, Mine):
        pass

    run, _ = trainer(tmp_path, cls=Selecting, max_steps=1)
    run.train()
    assert run.seen == 2
    assert issubclass(UDSTrainer, transformers.Trainer)


def test_training_again_starts_anew(tmp_path):
    run, _ = trainer(tmp_path, cls=Recording, max_steps=2, learning_rate=0.0)
    run.train()
    first = run.picks
    run.picks = []
    run.train()
    assert run.picks == first


def test_the_step_is_one_pool(tmp_path):
    """All of the best may come from one micro-batch, and the micro-batches that are trained are equally large."""
    data = sorted(tiny.examples(16, seed=4), key=targets)
    options = {"gradient_accumulation_steps": 2, "max_steps": 1}
    run, _ = trainer(tmp_path, cls=Recording, policy=uds.Longest(count=6), scope="step", data=data, **options)
    run.train()
    assert [len(batch["labels"]) for batch in run.kept] == [3, 3]
    kept = [int((labels[1:] != -100).sum()) for batch in run.kept for labels in batch["labels"]]
    assert sorted(kept) == [targets(one) for one in data[10:]]


def targets(one):
    return sum(label != -100 for label in one["labels"][1:])


def test_fewer_samples_than_micro_batches_train_right(tmp_path):
    options = {"gradient_accumulation_steps": 4, "max_steps": 1}
    run, got = trainer(tmp_path, cls=Recording, policy=uds.MaxLoss(count=2), scope="step", **options)
    run.train()
    assert [len(batch["labels"]) for batch in run.kept] == [1, 1]
    model, total, tokens = tiny.llama(), torch.zeros(()), 0
    for batch in run.kept:
        number = int((batch["labels"][:, 1:] != -100).sum())
        total, tokens = total + model(**batch).loss * number, tokens + number
    (total / tokens).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(got.steps[0], expected, rtol=1e-5, atol=1e-7)


def test_the_schedule_follows_the_global_step(tmp_path):
    selection = {"schedule": Schedule(start_step=2, every=2)}
    run, _ = trainer(tmp_path, cls=Recording, selection=selection, max_steps=5, gradient_accumulation_steps=2)
    run.train()
    assert [len(batch["labels"]) for batch in run.kept] == [8, 8, 8, 8, 2, 2, 8, 8, 2, 2]


def test_identities_pass_the_trainer(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    rows = [{**one, "number": number, "useless": 1} for number, one in enumerate(tiny.examples(32))]

    def collate(examples):
        return {**tiny.collate(examples), "number": torch.tensor([one["number"] for one in examples])}

    run, _ = trainer(tmp_path, data=datasets.Dataset.from_list(rows), selection={"id_field": "number"}, max_steps=1)
    run.data_collator = collate
    run.train()
    assert len(run.selector.last_ids) == 2
    assert set(run.selector.last_ids) <= set(range(32))


def test_another_policy_does_not_take_up_the_checkpoint(tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, **options)[0].train()
    for changed, words in (({"policy": uds.MaxLoss(keep=0.25)}, "policy='uds', now"), ({"scope": "step"}, "scope")):
        with pytest.raises(ValueError, match=words):
            trainer(tmp_path, **options, **changed)[0].train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_refusals_at_construction_name_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`scope` must be 'micro' or 'step', got 'pool'"):
        trainer(tmp_path, scope="pool")
    with pytest.raises(ValueError, match="LossDrop remembers samples by their ids: set `id_field`"):
        trainer(tmp_path, policy=uds.LossDrop(count=2))
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", 2)
    monkeypatch.setattr(transformers.Trainer, "_wrap_model", lambda self, model, *_, **__: model)
    with pytest.raises(ValueError, match=r"2 GPUs in one process \(DataParallel\).*torchrun"):
        trainer(tmp_path)


def test_a_policy_that_was_left_away_is_asked_for(tmp_path):
    with pytest.raises(TypeError, match="`policy` must be a policy such as"):
        UDSTrainer(model=tiny.llama(), args=arguments(tmp_path))


def test_processes_with_the_same_samples_need_a_group():
    from types import SimpleNamespace

    from uds_adapters.ranks import Ranks
    from uds_adapters.trainer_mixin import _check_arguments

    args = SimpleNamespace(n_gpu=1, parallelism_config=SimpleNamespace(tp_size=2, cp_size=1))
    with pytest.raises(ValueError, match=r"with tp_size above 1.*Ranks\(group=...\)"):
        _check_arguments(args, Ranks())
    _check_arguments(args, Ranks(group="the group of data parallelism"))


HOOKS = {
    "_set_signature_columns_if_needed": ["self"],
    "_inner_training_loop": ["self", "batch_size", "args", "resume_from_checkpoint"],
    "_save_optimizer_and_scheduler": ["self", "output_dir"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_prepare_inputs": ["self", "inputs"],
}


def test_private_methods_of_the_trainer_are_as_the_mixin_needs_them():
    base, version = transformers.Trainer, transformers.__version__
    private = {name for name in vars(UDSTrainerMixin) if name in dir(base) and re.match("_[^_]", name)}
    assert private <= set(HOOKS), "write down the parameters of every private method that the mixin overrides"
    for name, expected in HOOKS.items():
        method = getattr(base, name, None)
        assert method is not None, f"transformers {version} has no Trainer.{name}, which `UDSTrainerMixin` needs"
        found = list(inspect.signature(method).parameters)
        assert found[: len(expected)] == expected, f"transformers {version}: Trainer.{name}{found}, expected {expected}"
