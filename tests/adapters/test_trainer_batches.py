"""Hooks of a user's trainer: called as often as without selection, with what was chosen; entries of scoring passes."""

from typing import Any

import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters.token_mask import TokenMaskMixin  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402
from uds_adapters.transformers import UDSTrainerMixin  # noqa: E402

SETTINGS: Any = {"per_device_train_batch_size": 4, "max_steps": 2, "max_grad_norm": 0.0, "logging_steps": 1}
SETTINGS |= {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
SETTINGS |= {"remove_unused_columns": False, "gradient_accumulation_steps": 2}
SETTINGS |= {"train_sampling_strategy": "sequential"} if transformers.__version__ >= "5" else {}


class Llama(transformers.LlamaForCausalLM):
    """A forward that takes what it names, and nothing else."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, num_items_in_batch=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        options = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **options)


class Loose(torch.nn.Module):
    """A forward that hands on whatever it is given."""

    def __init__(self, model: Any):
        super().__init__()
        self.model, self.config, self.get_output_embeddings = model, model.config, model.get_output_embeddings

    def forward(self, input_ids=None, **kwargs):
        return self.model(input_ids=input_ids, **kwargs)


def strict() -> Any:
    model = Llama(tiny.llama().config)
    model.load_state_dict(tiny.llama().state_dict())
    return model


def collate(examples: Any) -> Any:
    """A batch with the weight of each sample."""
    batch = tiny.collate(examples)
    return {**batch, "flag": batch["input_ids"][:, 1].float() / tiny.VOCAB}


class Weighted(transformers.Trainer):
    """Takes an entry out in a hook, and uses it in its loss."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.prepared, self.flags, self.losses = [], [], []

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        self.flag = inputs.pop("flag")
        self.prepared.append(inputs["input_ids"].clone())
        return inputs

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.flags.append(self.flag)
        assert len(self.flag) == len(inputs["input_ids"])
        assert torch.equal(self.flag, inputs["input_ids"][:, 1].float() / tiny.VOCAB)
        loss = super().compute_loss(model, inputs, *args, **kwargs) * self.flag.mean()
        self.losses.append(float(loss.detach()))
        return loss


class Popped(transformers.Trainer):
    """Takes an entry out in its loss."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs.pop("flag")
        return super().compute_loss(model, inputs, *args, **kwargs)


def train(base: Any, folder, model, data, *, policy=None, **settings) -> Any:
    kind = base if policy is None else type("Selecting", (UDSTrainerMixin, base), {})
    given = {} if policy is None else {"policy": policy}
    arguments = transformers.TrainingArguments(str(folder), **{**SETTINGS, **settings})
    trainer = kind(model, arguments, collate, data, **given)
    trainer._get_train_sampler = lambda *_, **__: torch.utils.data.SequentialSampler(data)
    trainer.train()
    return trainer


def test_a_hook_runs_once_for_each_batch_and_receives_what_was_chosen(tmp_path):
    data: Any = tiny.examples(16)
    ours = train(Weighted, tmp_path, tiny.llama(), data, policy=uds.UDS(count=2, dim=16))
    assert [len(ids) for ids in ours.prepared] == [2] * 4
    chosen = [data[4 * i + j] for i, places in enumerate(_chosen(ours, data)) for j in places]
    stock = train(Weighted, tmp_path, tiny.llama(), chosen, per_device_train_batch_size=2)
    assert len(stock.prepared) == 4
    assert ours.losses == pytest.approx(stock.losses, rel=1e-5)
    for one, other in zip(ours.model.parameters(), stock.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def _chosen(trainer, data):
    """The places that each batch was chosen from, by the ids that were prepared."""
    for number, ids in enumerate(trainer.prepared):
        batch = tiny.collate(data[4 * number : 4 * number + 4])["input_ids"]
        yield [next(j for j, row in enumerate(batch) if torch.equal(row[: ids.shape[1]], one)) for one in ids]


def test_all_candidates_are_trained_as_without_selection(tmp_path):
    data: Any = tiny.examples(16)
    ours = train(Weighted, tmp_path, tiny.llama(), data, policy=uds.Full())
    stock = train(Weighted, tmp_path, tiny.llama(), data)
    assert ours.losses == stock.losses
    assert all(torch.equal(one, other) for one, other in zip(ours.prepared, stock.prepared, strict=True))


def test_the_mask_of_tokens_calls_a_hook_once(tmp_path):
    class Masked(TokenMaskMixin, Weighted): ...

    data: Any = tiny.examples(16)
    arguments = transformers.TrainingArguments(str(tmp_path), **SETTINGS)
    trainer = Masked(tiny.llama(), arguments, collate, data, token_mask=lambda _, batch: batch)
    trainer.train()
    assert len(trainer.prepared) == 4


@pytest.mark.parametrize("make", [strict, lambda: Loose(strict())], ids=["strict", "loose"])
@pytest.mark.filterwarnings("ignore:Could not estimate the number of tokens")
def test_scoring_leaves_out_entries_that_the_loss_takes_out(tmp_path, make):
    data: Any = tiny.examples(16)
    trainer = train(Popped, tmp_path, make(), data, policy=uds.UDS(count=2, dim=16))
    plain, own = BatchSelector(tiny.llama(), uds.UDS(count=2, dim=16)), BatchSelector(make(), uds.UDS(count=2, dim=16))
    batch = collate(data[:4])
    expected = plain(tiny.collate(data[:4]))
    assert torch.equal(own(batch)["input_ids"], expected["input_ids"])
    assert own.last_indices == plain.last_indices
    assert trainer.state.global_step == 2


def test_scoring_leaves_out_entries_under_peft_and_autocast(tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(strict(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    trainer = train(Popped, tmp_path, model, tiny.examples(16), policy=uds.UDS(count=2, dim=16), bf16=True)
    assert trainer.state.global_step == 2


def test_what_a_forward_refuses_by_name_is_left_out_and_other_errors_are_not():
    from uds_adapters.scoring import models

    batch, refused = collate(tiny.examples(3)), set()
    inputs = {name: value for name, value in batch.items() if name != "labels"} | {"use_cache": False}
    models.run(Loose(strict()), inputs, refused=refused)
    assert refused == {"flag", "use_cache"}
    with pytest.raises(TypeError, match="missing 1 required"):
        models.run(torch.nn.Linear(2, 2), {})
    with pytest.raises(TypeError, match="unexpected keyword argument 'input_ids'"):
        models.run(torch.nn.Linear(2, 2), inputs)


def test_ids_changed_after_the_choice_are_trained_and_told(tmp_path):
    class Shifts(Weighted):
        def _prepare_inputs(self, inputs):
            inputs = super()._prepare_inputs(inputs)
            return {**inputs, "input_ids": (inputs["input_ids"] + 1) % tiny.VOCAB}

        def compute_loss(self, model, inputs, *args, **kwargs):
            self.flags.append(inputs["input_ids"])
            return transformers.Trainer.compute_loss(self, model, inputs, *args, **kwargs)

    data: Any = tiny.examples(16)
    with pytest.warns(UserWarning, match="changed after its samples were chosen") as warned:
        ours = train(Shifts, tmp_path, tiny.llama(), data, policy=uds.Full())
    assert sum("changed after" in str(one.message) for one in warned) == 1
    stock = train(Shifts, tmp_path, tiny.llama(), data)
    assert all(torch.equal(one, other) for one, other in zip(ours.flags, stock.flags, strict=True))
