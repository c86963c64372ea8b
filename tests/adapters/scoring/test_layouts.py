"""Whether labels are shifted, compared with the models' own losses."""

from types import SimpleNamespace
from typing import Any

import architectures
import pytest
import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.scoring.layouts import Layouts  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402
from uds_adapters.token_mask import keep_highest, token_losses  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402

CE = torch.nn.functional.cross_entropy
BERT = {**architectures.SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def masked_batch(number=6, time=12, *, left=0):
    """Some labels, also at the first and the last position; `left` columns of padding before them."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(3, tiny.VOCAB, (number, time), generator=rng)
    hidden = torch.rand(number, time, generator=rng) < 0.25
    hidden[:, [0, 5, -1]] = True
    batch = {"input_ids": ids.masked_fill(hidden, 2), "labels": ids.masked_fill(~hidden, -100)}
    batch["attention_mask"] = torch.ones_like(ids)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    return {name: torch.nn.functional.pad(value, (left, 0), value=fill[name]) for name, value in batch.items()}


class Own(torch.nn.Module):
    """A model of a user's own. `shift`: of its loss; None: it has no loss."""

    def __init__(self, *, shift: bool | None, causal=True, extra=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(tiny.VOCAB, 16)
        self.mix = torch.nn.Linear(16, 16)
        self.head = torch.nn.Linear(16, tiny.VOCAB, bias=False)
        self.shift, self.causal, self.extra = shift, causal, extra

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None, labels=None):
        x, time = self.embed(input_ids), input_ids.shape[1]
        seen = torch.ones(time, time).tril() if self.causal else torch.ones(time, time)
        seen = seen[None] * (1.0 if attention_mask is None else attention_mask[:, None, :].float())
        logits = self.head((self.mix(seen @ x / seen.sum(2, keepdim=True).clamp(min=1)) + x).tanh())
        if labels is None or self.shift is None:
            return {"logits": logits}
        rows, targets = (logits[:, :-1], labels[:, 1:]) if self.shift else (logits, labels)
        return {"loss": CE(rows.flatten(0, 1), targets.flatten(), ignore_index=-100) + self.extra, "logits": logits}


def own_losses(model, batch):
    """The model's own loss of each sample by itself."""
    with torch.no_grad():
        parts = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(len(batch["labels"]))]
        return torch.stack([model(**part)["loss"] for part in parts])


def check_scores(model, batch):
    expected = own_losses(model.eval(), batch)
    select = BatchSelector(model, uds.MaxLoss(count=2))
    select(batch)
    last: Any = select.last
    torch.testing.assert_close(last.scores.float(), expected, rtol=1e-5, atol=1e-6)
    assert select.last_indices == sorted(expected.topk(2).indices.tolist())


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Electra", "ModernBert"])
def test_scores_of_masked_models_are_their_own_losses(name, left):
    distilled = {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "dropout": 0.0}
    config = distilled if name == "DistilBert" else BERT
    config = {**config, "vocab_size": tiny.VOCAB, "pad_token_id": 0, "max_position_embeddings": 64}
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**config)
    check_scores(getattr(transformers, f"{name}ForMaskedLM")(made), masked_batch(left=left))


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("extra", [0.0, 7.0])
def test_scores_of_own_models_are_their_own_losses(shift, left, extra):
    model, batch = Own(shift=shift, causal=shift), masked_batch(left=left)
    if shift:
        batch["labels"][:, left] = -100  # a padded position would predict it
    check_scores(model, batch)
    assert Layouts(Own(shift=shift, causal=not shift, extra=extra)).of(batch).shift is shift


@pytest.mark.parametrize(("name", "shift"), [("BART causal", False), ("XLNet", False), ("Llama", True), ("GPT2", True)])
@pytest.mark.filterwarnings("ignore")
def test_it_is_the_loss_that_decides_and_not_the_models_name(name, shift):
    model, batch = architectures.TABLE[name].build(), tiny.batch(5)
    assert Layouts(model).of(batch) == batches.Layout(shift=shift)
    measured = Layouts(model)
    measured._shift = None  # as if the model were unknown
    assert measured.of(batch) == batches.Layout(shift=shift)


def test_what_is_known_costs_no_pass_and_what_is_not_is_measured_once():
    calls = []
    for model in (tiny.llama(), Own(shift=False)):
        model.register_forward_pre_hook(lambda module, _: calls.append(type(module).__name__))
        layouts = Layouts(model)
        for _ in range(3):
            layouts.of(masked_batch())
        assert calls == ([] if not isinstance(model, Own) else ["Own"] * 2)
    select = BatchSelector(Own(shift=False), uds.Random(keep=0.5))
    select.model.register_forward_pre_hook(lambda *_: pytest.fail("Random needs no pass"))
    select(masked_batch())


def test_measuring_changes_neither_mode_nor_random_numbers():
    model = Own(shift=False).train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    Layouts(model).of(masked_batch())
    assert model.training
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_a_loss_is_causal_or_has_to_say_it():
    batch = masked_batch()
    assert Layouts(Own(shift=None)).of(batch).shift
    both = Own(shift=None, causal=False)
    with pytest.raises(ValueError, match=r"Own reads the tokens on both sides.*say it with `shift`"):
        BatchSelector(both, uds.MaxLoss(keep=0.5))(batch)
    expected = own_losses(Own(shift=False, causal=False), batch)
    select = BatchSelector(both, uds.MaxLoss(count=2), shift=False)
    select(batch)
    last: Any = select.last
    torch.testing.assert_close(last.scores.float(), expected, rtol=1e-5, atol=1e-6)
    assert not select.layout.shift


def test_documents_of_a_model_that_does_not_shift():
    rows = masked_batch(3)
    packed = {name: rows[name].reshape(1, -1) for name in ("input_ids", "labels")}
    packed["position_ids"] = torch.arange(12).repeat(3)[None]
    samples: Any = batches.view(packed, layout=batches.Layout(shift=False))
    assert torch.equal(samples.labels, rows["labels"])
    assert samples.tokens.tolist() == (rows["labels"] != -100).sum(1).tolist()
    assert torch.equal(samples.split(1)[1].labels, rows["labels"][1:2])
    joined = batches.join([samples.take([0]), samples.take([2])], layout=batches.Layout(shift=False))
    assert batches.trained_tokens(joined, layout=batches.Layout(shift=False)) == int(samples.tokens[[0, 2]].sum())


def test_the_trainer_trains_the_masked_samples_that_the_loss_says(tmp_path, monkeypatch):
    from uds_adapters.transformers import UDSTrainer

    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
    batch = masked_batch(8)
    expected = own_losses(model.eval(), batch).topk(2).indices.sort().values.tolist()
    data: Any = [{name: value[i] for name, value in batch.items()} for i in range(8)]
    options: Any = {"per_device_train_batch_size": 8, "max_steps": 1, "report_to": [], "save_strategy": "no"}
    options |= {"use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False}
    arguments = transformers.TrainingArguments(str(tmp_path), **options)
    trainer = UDSTrainer(model, arguments, train_dataset=data, policy=uds.MaxLoss(count=2))
    monkeypatch.setattr(trainer, "_get_train_sampler", lambda *_: torch.utils.data.SequentialSampler(data))
    trainer.train()
    assert trainer.selector.last_indices == expected


def test_token_masks_of_a_masked_model():
    model, batch = Own(shift=False, causal=False).eval(), masked_batch()
    losses = token_losses(model, batch)
    with torch.no_grad():
        logits = model(batch["input_ids"], batch["attention_mask"])["logits"]
    expected = CE(logits.transpose(1, 2), batch["labels"], ignore_index=-100, reduction="none")
    torch.testing.assert_close(losses, expected)
    half = keep_highest(batch, losses, keep=0.5, shift=False)["labels"]
    for values, labels, left in zip(expected, batch["labels"], half, strict=True):
        number = -(-int((labels != -100).sum()) // 2)
        assert set((left != -100).nonzero().flatten().tolist()) == set(values.topk(number).indices.tolist())


def test_a_scorer_views_a_validation_batch_as_the_selector_does():
    from uds_adapters.scoring.validation import ValidationScorer

    batch = masked_batch()
    select = BatchSelector(
        Own(shift=None, causal=False),
        uds.GREATS(keep=0.5),
        shift=False,
        scorer=lambda model, **options: ValidationScorer(model, validation=batch, **options),
    )
    select(batch)
    candidates = Scorer(Own(shift=False, causal=False))(batch)
    assert torch.equal(candidates.labels, batch["labels"])


def test_a_batch_without_labels_tells_nothing():
    layouts = Layouts(Own(shift=False))
    without = {name: value for name, value in masked_batch().items() if name != "labels"}
    assert layouts.of(without).shift
    assert not layouts.of(masked_batch()).shift
    assert layouts.of(SimpleNamespace()) == batches.Layout(shift=False)
