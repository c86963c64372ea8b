"""Batches in pieces: the same loss and gradients, where these are sums over samples."""

from dataclasses import replace

import pytest
import torch
from lab_runs import SETTINGS, trained
from small_decoders import BOUND, batch_of, far, model_of
from small_decoders import trained as gradients_of

from uds_adapters.lab.evaluation import block_loss, logit_blocks
from uds_adapters.lab.training import passes
from uds_adapters.lab.training.passes import TrainingPasses


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (3, [3, 2]), (5, [5])])
def test_pieces_add_up_to_the_gradient_of_the_batch(monkeypatch, most, sizes):
    model, batch = model_of("tied"), batch_of()
    number = torch.tensor(int((batch["labels"][:, 1:] != -100).sum()))
    loss, expected = gradients_of(model, batch, num_items_in_batch=number)
    divided = TrainingPasses(model)
    monkeypatch.setattr(passes, "ACTIVATIONS", most * divided._bytes * batch["input_ids"].shape[1])
    pieces = divided.pieces(batch)
    assert [len(piece["input_ids"]) for piece in pieces] == sizes
    model.zero_grad()
    losses = [model(**piece, num_items_in_batch=number).loss for piece in pieces]
    for one in losses:
        one.backward()
    got = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert float(torch.stack(losses).sum().detach()) == pytest.approx(loss, rel=1e-6)
    assert far(got, expected) < BOUND


def test_the_estimate_is_near_what_autograd_stores(monkeypatch):
    """Per token, on a model of the usual proportions; parameters are not counted."""
    model, batch = model_of("wide"), batch_of(number=2, time=11)
    known = {p.data_ptr() for p in model.parameters()}
    stored = {}

    def store(x):
        if x.data_ptr() not in known:
            stored[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    head = model.get_output_embeddings()
    with torch.autograd.graph.saved_tensors_hooks(store, lambda x: x):
        hidden = model.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    assert head is not None
    assert hidden.requires_grad
    tokens = batch["input_ids"].numel()
    assert 0.6 < TrainingPasses(model)._bytes * tokens / sum(stored.values()) < 1.4


@pytest.mark.parametrize("spoil", ["dropout", "config", "router"])
def test_a_batch_stays_whole_where_pieces_would_train_otherwise(monkeypatch, spoil):
    monkeypatch.setattr(passes, "ACTIVATIONS", 1)
    model, batch = model_of("routed" if spoil == "router" else "tied"), batch_of()
    if spoil == "dropout":
        model.model.layers[0].mlp.act_fn = torch.nn.Dropout(0.1)
    elif spoil == "config":
        model.config.attention_dropout = 0.1
    assert TrainingPasses(model).pieces(batch) == [batch]


@pytest.mark.parametrize(("policy", "lora_rank"), [("full", None), ("uds", 2)])
def test_a_run_in_pieces_and_blocks_is_the_same_run(task, tmp_path, monkeypatch, policy, lora_rank):
    settings = replace(SETTINGS, lora_rank=lora_rank)
    expected = trained(task, policy, tmp_path, settings=settings)
    calls = []
    pieces = TrainingPasses.pieces
    monkeypatch.setattr(
        TrainingPasses, "pieces", lambda self, batch: calls.append(found := pieces(self, batch)) or found
    )
    monkeypatch.setattr(passes, "ACTIVATIONS", 1)
    monkeypatch.setattr(logit_blocks, "WHOLE", 0)
    monkeypatch.setattr(block_loss, "BLOCK", 2**14)
    got = trained(task, policy, tmp_path, settings=settings)
    assert [len(one) for one in calls] == [8 if policy == "full" else 2] * 4
    assert [one.loss for one in got.evaluations] == pytest.approx([one.loss for one in expected.evaluations], rel=2e-5)
    assert got.selected == expected.selected
    assert got.tokens == expected.tokens


def test_a_policy_that_measures_whole_batches_trains_on_them(task, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "ACTIVATIONS", 1)
    monkeypatch.setattr(TrainingPasses, "pieces", lambda *_: pytest.fail("a batch was divided"))
    trained(task, "predicted:policy=maxloss", tmp_path)
