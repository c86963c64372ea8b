"""Validation samples beside the candidates: GREATS through a model is GREATS on gradients that autograd makes."""

import pytest
import reference

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.validation import ValidationScorer  # noqa: E402


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
    from uds_adapters.forward import Scorer

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
    from uds_adapters.forward import Scorer

    with pytest.raises(ValueError, match="GREATS needs validation samples"):
        Scorer(tiny.llama()).examine(batches.view(tiny.batch(2)), uds.GREATS())
