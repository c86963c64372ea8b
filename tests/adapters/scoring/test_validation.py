"""Validation samples beside the candidates: GREATS through a model is GREATS on gradients that autograd makes."""

from functools import partial

import pytest
import reference

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.scoring.layer_gradients import LayerGradientScorer  # noqa: E402
from uds_adapters.scoring.validation import ValidationScorer  # noqa: E402
from uds_adapters.torch import BatchSelector  # noqa: E402


def head_gradients(model, data):
    """Of a copy of the head, cut off from the rest, one sample after the other."""
    out = []
    for i in range(len(data["input_ids"])):
        one = {key: value[i : i + 1] for key, value in data.items()}
        hidden = model.base_model(one["input_ids"], attention_mask=one["attention_mask"]).last_hidden_state.detach()
        weight = model.lm_head.weight.detach().clone().requires_grad_()
        logits = torch.nn.functional.linear(hidden, weight)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], one["labels"][0, 1:])
        out.append(torch.autograd.grad(loss, weight)[0].flatten())
    return torch.stack(out)


def relative(got, expected, mine, theirs):
    """Largest error of products, in units of the gradients' norms."""
    return float(((got - expected).abs() / mine.norm(dim=1).outer(theirs.norm(dim=1))).max())


@pytest.mark.parametrize("frozen", [True, False])
def test_greats_through_a_model_is_greats_on_gradients_by_autograd(frozen):
    model, data, validation = tiny.llama(frozen_head=frozen), tiny.batch(6), tiny.batch(3, seed=1, left=True)
    mine, theirs = head_gradients(model, data), head_gradients(model, validation)
    scorer, policy = ValidationScorer(model, validation), uds.GREATS(count=3)
    features = scorer.examine(batches.view(data), policy)
    assert relative(features["products"], mine @ mine.T, mine, mine) < 1e-5
    alignment = features["alignment"][:, None]
    assert relative(alignment, mine @ theirs.mean(dim=0, keepdim=True).T, mine, theirs.mean(dim=0, keepdim=True)) < 1e-5
    expected, _ = reference.greats(mine.double().numpy(), theirs.double().numpy(), count=3)
    assert policy.choose(None, features)[0].indices.tolist() == expected


def test_a_function_gives_the_batch_of_each_step():
    model, data = tiny.llama(), tiny.batch(4)
    given = [tiny.batch(2, seed=seed) for seed in (1, 2)]
    left = iter(given)
    scorer = ValidationScorer(model, lambda: next(left))
    policy = uds.GREATS(count=2)
    for validation in given:
        got = scorer.examine(batches.view(data), policy)["alignment"]
        expected = ValidationScorer(model, validation).examine(batches.view(data), policy)["alignment"]
        torch.testing.assert_close(got, expected)


def test_other_policies_see_what_they_always_see():
    from uds_adapters.scoring.scorer import Scorer

    model, data, policy = tiny.llama(), batches.view(tiny.batch(4)), uds.MaxLoss()
    got = ValidationScorer(model, tiny.batch(2, seed=1), score_batch_size=2).examine(data, policy)
    torch.testing.assert_close(got, Scorer(model).examine(data, policy))


def test_pieces_of_a_batch_are_refused():
    scorer = ValidationScorer(tiny.llama(), tiny.batch(2, seed=1), score_batch_size=2)
    policy = uds.GREATS(count=2)
    with pytest.raises(ValueError, match="choose from each batch"):
        policy.choose(None, scorer.examine(batches.view(tiny.batch(4)), policy))
    with pytest.raises(ValueError, match="do not concatenate"):
        scorer.examine(batches.view(tiny.batch(5)), policy)


def test_without_validation_it_says_what_is_missing():
    from uds_adapters.scoring.scorer import Scorer

    with pytest.raises(ValueError, match="GREATS needs validation samples"):
        Scorer(tiny.llama()).examine(batches.view(tiny.batch(2)), uds.GREATS())


# --- in loops and trainers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValidationScorer, LayerGradientScorer])
def test_a_loop_trains_what_greats_keeps(kind):
    model, validation, policy = tiny.llama(), tiny.batch(3, seed=1), uds.GREATS(keep=0.5)
    if kind is LayerGradientScorer:
        model.lm_head.requires_grad_(False)
    select = BatchSelector(model, policy, scorer=partial(kind, validation=validation))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        data = tiny.batch(6, seed=step)
        kept = policy.choose(None, kind(model, validation).examine(batches.view(data), policy))[0].indices.tolist()
        chosen = select(data)
        assert select.last_indices == sorted(kept)
        model(**chosen).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert select.metrics["eta"] > 0
    assert select.metrics["gradient_mean"] > 0


def test_candidates_that_are_validation_samples_are_kept_before_others():
    model, validation = tiny.llama(), tiny.batch(8, seed=1)
    select = BatchSelector(model, uds.GREATS(count=3), scorer=partial(ValidationScorer, validation=validation))
    select(tiny.collate([*tiny.examples(8, seed=1)[:3], *tiny.examples(9, seed=2)]))
    assert select.last_indices == [0, 1, 2]


def test_the_trainer_hands_it_on(tmp_path):
    from transformers import TrainingArguments

    from uds_adapters.transformers import UDSTrainer

    model = tiny.llama(frozen_head=True)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=6,
        max_steps=3,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = UDSTrainer(
        model=model,
        args=arguments,
        train_dataset=tiny.examples(18),
        data_collator=tiny.collate,
        policy=uds.GREATS(keep=0.5),
        selection={"scorer": partial(LayerGradientScorer, validation=tiny.batch(3, seed=1))},
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert len(trainer.selector.last_indices) == 3


def test_a_window_of_several_batches_is_refused_as_one_pool_and_taken_one_by_one():
    scorer = partial(ValidationScorer, validation=tiny.batch(2, seed=1))
    select = BatchSelector(tiny.llama(), uds.GREATS(keep=0.5), scorer=scorer)
    window = [tiny.batch(4, seed=seed) for seed in (2, 3)]
    with pytest.raises(ValueError, match="choose from each batch"):
        select.select_step(window)
    kept, _ = select.select_step(window, scope="micro")
    assert [len(batch["input_ids"]) for batch in kept] == [2, 2]


def test_sharded_models_are_refused(monkeypatch):
    from uds_adapters.scoring import models

    select = BatchSelector(
        tiny.llama(), uds.GREATS(keep=0.5), scorer=partial(ValidationScorer, validation=tiny.batch(2, seed=1))
    )
    monkeypatch.setattr(models, "is_sharded", lambda _model: True)
    with pytest.raises(ValueError, match="ValidationScorer does not support models with sharded weights"):
        select(tiny.batch(4))
