"""GREATS in the layers that train: products as autograd has them, from a pass that leaves no trace."""

import random

import numpy as np
import pytest
import reference

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import tiny  # noqa: E402

import uds_core as uds  # noqa: E402
from uds_adapters import batches  # noqa: E402
from uds_adapters.scoring.layer_gradients import LayerGradientScorer  # noqa: E402


def lora(*, seed=0, dropout=0.1, targets=("q_proj", "v_proj", "down_proj"), base=None):
    """LoRA with a B that is not 0, so that no gradient vanishes."""
    config = peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, target_modules=list(targets))
    model = peft.get_peft_model(tiny.llama(seed=seed) if base is None else base, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.train()


def gradients(model, data):
    """Of all parameters that train, one sample after the other, from a copy of the model in evaluation mode."""
    import copy

    model = copy.deepcopy(model).eval()
    out = []
    for i in range(len(data["input_ids"])):
        model.zero_grad()
        model(**{key: value[i : i + 1] for key, value in data.items()}).loss.backward()
        out.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    return torch.stack(out)


def relative(got, expected, mine, theirs):
    return float(((got - expected).abs() / mine.norm(dim=1).outer(theirs.norm(dim=1))).max())


@pytest.mark.parametrize("left", [False, True])
def test_products_in_lora_layers_are_autograds(left):
    model, data, validation = lora(), tiny.batch(6, left=left), tiny.batch(3, seed=1, more=2)
    mine, theirs = gradients(model, data), gradients(model, validation)
    policy = uds.GREATS(count=3)
    features = LayerGradientScorer(model, validation).examine(batches.view(data), policy)
    assert relative(features["products"], mine @ mine.T, mine, mine) < 1e-5
    goal = theirs.mean(dim=0, keepdim=True)
    assert relative(features["alignment"][:, None], mine @ goal.T, mine, goal) < 1e-5
    expected, _ = reference.greats(mine.double().numpy(), theirs.double().numpy(), count=3)
    assert policy.choose(None, features)[0].indices.tolist() == expected


def test_layers_that_train_without_lora_count_as_well():
    model = tiny.llama(frozen_head=True).requires_grad_(False)
    layers = [model.model.layers[0].mlp.up_proj, model.model.layers[1].self_attn.o_proj]
    for layer in layers:
        layer.weight.requires_grad = True
    data = tiny.batch(4)
    mine = gradients(model, data)
    features = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(data), uds.GREATS())
    assert relative(features["products"], mine @ mine.T, mine, mine) < 1e-5


def test_scale_of_the_head_counts():
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        logit_scale=0.0625,
        pad_token_id=0,
    )
    model, data = lora(base=CohereForCausalLM(config)), tiny.batch(4)
    mine = gradients(model, data)
    features = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(data), uds.GREATS())
    assert relative(features["products"], mine @ mine.T, mine, mine) < 1e-5


def test_documents_in_one_row_are_samples_too():
    from transformers import DataCollatorWithFlattening

    model, examples = lora(), tiny.examples(4)
    packed = DataCollatorWithFlattening(return_tensors="pt")(examples)
    expected = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(
        batches.view(tiny.collate(examples)), uds.GREATS()
    )
    got = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(packed), uds.GREATS())
    scale = float(expected["products"].diagonal().max())
    assert float((got["products"] - expected["products"]).abs().max()) < 1e-4 * scale


def everything(model):
    """What an examination must not change."""
    return {
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "weights": [p.detach().clone() for p in model.parameters()],
        "flags": [(p.requires_grad, p.is_leaf) for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "random": (torch.random.get_rng_state(), np.random.get_state(), random.getstate()),  # noqa: NPY002
        "mode": torch.is_grad_enabled(),
    }


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_nothing_is_left_behind_also_after_an_error():
    """Gradients accumulated before are bit-identical, as are random generators, flags, modes and hooks."""
    model, data = lora(), tiny.batch(4)
    model(**tiny.batch(2, seed=5)).loss.backward()
    model.base_model.model.model.layers[0].eval()
    before = everything(model)
    assert any(gradient is not None and gradient.any() for gradient in before["gradients"])
    scorer = LayerGradientScorer(model, tiny.batch(2, seed=1))
    scorer.examine(batches.view(data), uds.GREATS())
    after = everything(model)
    for name, value in before.items():
        assert same(value, after[name]), name
    broken = {**data, "labels": data["labels"][:, :-1]}
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever comes first
        scorer.examine(batches.view(broken), uds.GREATS())
    after = everything(model)
    for name, value in before.items():
        assert same(value, after[name]), name


def test_training_goes_on_as_if_nothing_had_been_examined():
    """The same seed and the same batches, with and without an examination before each: bit-identical weights."""
    ended = []
    for looks in (False, True):
        model = lora()
        torch.manual_seed(7)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        scorer = LayerGradientScorer(model, tiny.batch(2, seed=1))
        for step in range(3):
            data = tiny.batch(4, seed=step)
            if looks:
                scorer.examine(batches.view(data), uds.GREATS())
            model(**data).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ended.append([p.detach().clone() for p in model.parameters()])
    assert same(*ended)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradient_checkpointing_makes_no_difference():
    data, policy = tiny.batch(4), uds.GREATS()
    expected = LayerGradientScorer(lora(), tiny.batch(2, seed=1)).examine(batches.view(data), policy)
    model = lora()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    got = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(data), policy)
    torch.testing.assert_close(got, expected)


def test_in_half_precision_products_are_near():
    model, data = lora(), batches.view(tiny.batch(4))
    expected = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(data, uds.GREATS())["products"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(data, uds.GREATS())["products"]
    assert got.dtype == torch.float32
    assert float((got - expected).abs().max()) < 0.05 * float(expected.diagonal().max())


def test_a_layer_that_runs_twice_is_one_with_longer_samples():
    model, data = tiny.llama().requires_grad_(False), tiny.batch(4)
    first, second = (layer.mlp for layer in model.model.layers)
    second.up_proj = first.up_proj
    first.up_proj.weight.requires_grad = True
    mine = gradients(model, data)
    features = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(data), uds.GREATS())
    assert relative(features["products"], mine @ mine.T, mine, mine) < 1e-5


def test_a_sample_without_targets_has_no_gradient():
    model, data = lora(), tiny.batch(4)
    data["labels"][2] = -100
    features = LayerGradientScorer(model, tiny.batch(2, seed=1)).examine(batches.view(data), uds.GREATS())
    assert (features["products"][2] == 0).all()
    assert features["alignment"][2] == 0
    selection, _ = uds.GREATS(count=3).choose(None, features)
    assert sorted(selection.indices.tolist()) == [0, 1, 3]


def compiled():
    """A model whose layers pass hooks by, as those do that were compiled in place."""
    model = lora()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" in name:
            module._compiled_call_impl = module.forward
    return model


def capped():
    from architectures import TABLE

    return TABLE["Gemma2 hard cap"].build()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: tiny.llama().requires_grad_(False), ValueError, "no trainable linear layer"),
        (compiled, TypeError, "no hook of a trainable layer ran"),
        (capped, TypeError, "do not come from a linear head"),
    ],
)
def test_what_cannot_be_told_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        LayerGradientScorer(make(), tiny.batch(2)).examine(batches.view(tiny.batch(2)), uds.GREATS())
