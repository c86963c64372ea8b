"""The Lightning callback: the gradient of a stock Lightning Trainer that was fed the chosen samples."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loops
import pytest
import tiny

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning.pytorch")

from lightning_module import Module, loader  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters.lightning import UDSCallback  # noqa: E402
from uds_adapters.torch import weighted_loss  # noqa: E402

POLICY = uds.UDS(keep=0.5, memory=16, dim=16)
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # Lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Picks(UDSCallback):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.picks = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert self.selector is not None
        self.picks.append(list(self.selector.last_indices))


def fit(folder, callback=None, *, module=None, data=None, resume=None, validation=None, **options):
    module = Module() if module is None else module
    trainer = lightning.Trainer(
        **{
            "default_root_dir": folder,
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [] if callback is None else [callback],
            **options,
        }
    )
    trainer.fit(module, loader() if data is None else data, validation, ckpt_path=resume)
    return module, trainer


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_gradient_is_that_of_a_stock_trainer_fed_the_chosen_samples(tmp_path, precision, accumulation):
    options = {"precision": precision, "accumulate_grad_batches": accumulation}
    chosen, _ = fit(tmp_path, UDSCallback(POLICY), **options)
    assert [len(batch["labels"]) for batch in chosen.seen] == [3] * 8
    fed = torch.utils.data.DataLoader(chosen.seen, batch_size=None)
    stock, _ = fit(tmp_path, data=fed, **options)
    assert len(chosen.gradients) == -(-8 // accumulation)
    for got, expected in zip(chosen.gradients, stock.gradients, strict=True):
        assert float((got - expected).norm() / expected.norm()) < 1e-6
    assert chosen.losses == pytest.approx(stock.losses, rel=1e-6)


def test_the_chosen_are_those_that_a_plain_loop_chooses(tmp_path):
    from uds_adapters.torch import BatchSelector

    callback = Picks(POLICY)
    frozen = Module()
    frozen.configure_optimizers = lambda: torch.optim.SGD(frozen.parameters(), lr=0.0)
    fit(tmp_path, callback, module=frozen)
    select, expected = BatchSelector(tiny.llama(), POLICY), []
    for batch in loader():
        select(batch)
        expected.append(list(select.last_indices))
    assert callback.picks == expected
    assert any(picks != [0, 1, 2] for picks in expected)


def saving(folder, callback, **options):
    """`fit`, with a checkpoint after each optimizer step."""
    checkpoint = lightning.callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    return fit(folder, callbacks=[callback, checkpoint], enable_checkpointing=True, **options)[0]


def same(one, other):
    pairs = list(zip(one.parameters(), other.parameters(), strict=True))
    return len(pairs) > 0 and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resuming_at_the_end_of_an_epoch_is_exact(tmp_path, precision):
    options: dict[str, Any] = {"precision": precision, "accumulate_grad_batches": 2, "max_epochs": 2}
    straight, again = Picks(POLICY), Picks(POLICY)
    whole = saving(tmp_path, straight, **options)
    resumed = saving(tmp_path, again, resume=tmp_path / "step=4.ckpt", **options)
    assert again.picks == straight.picks[8:]
    assert len(again.picks) == 8
    assert same(whole, resumed)
    assert straight.selector is not None
    assert again.selector is not None
    for name, tensor in straight.selector.state_dict().items():
        assert torch.equal(torch.nan_to_num(tensor), torch.nan_to_num(again.selector.state_dict()[name]))


class Resumable:
    """A loader that knows where it is, as Lightning wants it for resuming within an epoch."""

    def __init__(self):
        self.done = 0

    def __len__(self):
        return 8

    def __iter__(self):
        batches, start = list(loader()), self.done
        for self.done in range(start + 1, 9):
            yield batches[self.done - 1]
        self.done = 0

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def test_resuming_in_the_middle_of_an_epoch_is_exact(tmp_path):
    straight, again = Picks(POLICY), Picks(POLICY)
    whole = saving(tmp_path, straight, data=Resumable(), accumulate_grad_batches=2)
    resumed = saving(tmp_path, again, data=Resumable(), accumulate_grad_batches=2, resume=tmp_path / "step=2.ckpt")
    assert again.picks == straight.picks[-len(again.picks) :]
    assert len(again.picks) == 4
    assert same(whole, resumed)


def test_the_memory_matters_for_resuming(tmp_path):
    """Without its state the run goes elsewhere: the tests above could fail."""
    policy = uds.UDS(keep=0.5, memory=16, dim=16, weight=4.0)
    straight, again = Picks(policy), Picks(policy)
    saving(tmp_path, straight, max_epochs=2)
    file = tmp_path / "step=8.ckpt"
    saved = torch.load(file, weights_only=False)
    assert set(saved["callbacks"].pop("Picks"))
    torch.save(saved, file)
    saving(tmp_path, again, resume=file, max_epochs=2)
    assert again.picks != straight.picks[8:]
    assert len(again.picks) == 8


def test_validation_sees_whole_batches(tmp_path):
    validated = []

    class Validating(Module):
        def validation_step(self, batch, batch_idx):
            validated.append(len(batch["labels"]))

    callback = Picks(POLICY)
    options: dict[str, Any] = {"num_sanity_val_steps": 2, "limit_train_batches": 3}
    fit(tmp_path, callback, module=Validating(), validation=loader(12), **options)
    assert validated == [6] * 4  # two in the sanity check, two after the epoch
    assert len(callback.picks) == 3


def test_the_selection_is_logged(tmp_path):
    logger = lightning.loggers.CSVLogger(tmp_path)
    _, trainer = fit(tmp_path, UDSCallback(POLICY), logger=logger, log_every_n_steps=1, limit_train_batches=3)
    names = ("utility_mean", "diversity_mean", "alpha", "kept_tokens_fraction", "scoring_seconds")
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        assert all(float(row[f"uds/{name}"]) >= 0 for name in names)
    assert 0 < float(trainer.callback_metrics["uds/kept_tokens_fraction"]) < 1


class Nested(Module):
    """The language model two attributes down, and a second one beside it."""

    def __init__(self, *, teacher=False):
        super().__init__()
        inner = self.model
        self.model = torch.nn.ModuleDict({"lm": inner})
        self.model.forward = inner.forward
        if teacher:
            self.teacher = tiny.llama(seed=1).requires_grad_(requires_grad=False)

    def on_before_optimizer_step(self, optimizer):
        pass


def test_the_language_model_is_found_or_named(tmp_path):
    plain, found, named = Picks(POLICY), Picks(POLICY), Picks(POLICY, model="model.lm")
    fit(tmp_path, plain)
    fit(tmp_path, found, module=Nested())
    fit(tmp_path, named, module=Nested(teacher=True))
    assert plain.picks == found.picks == named.picks
    with pytest.raises(ValueError, match=r"got \['model.lm', 'teacher'\].*UDSCallback\(policy, model='model.lm'\)"):
        fit(tmp_path, UDSCallback(POLICY), module=Nested(teacher=True))
    with pytest.raises(ValueError, match=r"Module has no submodule 'student'"):
        fit(tmp_path, UDSCallback(POLICY, model="student"))
    with pytest.raises(ValueError, match=r"got none.*model='model'"):
        fit(tmp_path, UDSCallback(POLICY), module=Module(torch.nn.Linear(2, 2)))


def test_policies_that_look_at_no_logits_need_no_language_model(tmp_path):
    class Plain(Module):
        def __init__(self):
            super().__init__(torch.nn.Embedding(tiny.VOCAB, 1))

        def training_step(self, batch, batch_idx):
            self.seen.append(batch)
            return self.model(batch["input_ids"]).mean()

    module, _ = fit(tmp_path, UDSCallback(uds.Longest(count=2)), module=Plain())
    assert [len(batch["labels"]) for batch in module.seen] == [2] * 8


def test_batches_that_are_no_dictionaries_are_refused(tmp_path):
    pairs = loader(collate=lambda examples: tuple(tiny.collate(examples).values()))
    with pytest.raises(TypeError, match=r"dictionaries of tensors, got (tuple|list).*let the collator return"):
        fit(tmp_path, UDSCallback(POLICY), data=pairs)


def test_several_processes_are_refused():
    trainer: Any = SimpleNamespace(world_size=2)
    with pytest.raises(ValueError, match=r"the Trainer has 2: use devices=1"):
        UDSCallback(POLICY).on_fit_start(trainer, Module())


def test_batch_encodings_stay_what_they_are(tmp_path):
    transformers = pytest.importorskip("transformers")
    kinds = []

    class Kinds(Module):
        def training_step(self, batch, batch_idx):
            kinds.append((type(batch), len(batch["labels"])))
            return super().training_step(batch, batch_idx)

    data = loader(12, collate=lambda examples: transformers.BatchEncoding(tiny.collate(examples)))
    fit(tmp_path, UDSCallback(POLICY), module=Kinds(), data=data)
    assert kinds == [(transformers.BatchEncoding, 3)] * 2


def test_fitting_again_starts_anew(tmp_path):
    callback = Picks(POLICY)
    fit(tmp_path, callback)
    first, callback.picks = callback.picks, []
    fit(tmp_path, callback)
    assert callback.picks == first


class Weighted(Module):
    """Trains on a loss that is multiplied by importance weights."""

    def training_step(self, batch, batch_idx):
        weights = batch.pop("loss_weights")
        self.seen.append(weights)
        return weighted_loss(self.model(**batch).logits, batch["labels"], weights)


def test_importance_weights_reach_the_training_step(tmp_path):
    callback = UDSCallback(uds.UDS(keep=0.5, memory=16, dim=16, temperature=2.0))
    module, _ = fit(tmp_path, callback, module=Weighted(), limit_train_batches=1)
    examples = tiny.examples(6)
    assert callback.selector is not None
    picks, importance = loops.drawn(callback.selector.last)
    number = sum(label != -100 for one in examples for label in one["labels"])
    expected = loops.explicit([examples[i] for i in picks], importance, number)
    assert float((module.gradients[0] - expected).norm() / expected.norm()) < 1e-5


def test_importance_weights_that_training_step_ignores_are_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"the training step left `loss_weights` in its batch.*weighted_loss"):
        fit(tmp_path, UDSCallback(uds.UDS(keep=0.5, memory=16, dim=16, temperature=2.0)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_predicted_scores_learn_from_every_sample_that_is_trained(tmp_path, precision):
    policy = uds.Predicted("entropy", count=3, warmup=2, forget=1.0)
    callback = UDSCallback(policy)
    fit(tmp_path, callback, precision=precision)
    assert callback.selector is not None
    assert float(callback.selector.history.state.learner.weight) == 2 * 6 + 5 * 3
