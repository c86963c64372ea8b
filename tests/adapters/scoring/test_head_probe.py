"""A look at the head, and a pass that leaves no trace."""

import random
from types import SimpleNamespace
from typing import Any

import architectures
import numpy as np
import pytest
import tiny

torch = pytest.importorskip("torch")

import uds_core as uds  # noqa: E402
from uds_adapters.scoring.head_probe import HeadProbe, evaluating, outside_autocast, undisturbed  # noqa: E402
from uds_adapters.scoring.scorer import Scorer  # noqa: E402


def test_the_head_is_handed_its_last_position():
    model, batch = tiny.llama(), tiny.batch()
    with torch.no_grad(), evaluating(model):
        expected = model(input_ids=batch["input_ids"]).logits
        with HeadProbe(model.lm_head) as probe:
            logits = model(input_ids=batch["input_ids"]).logits
    torch.testing.assert_close(logits, expected[:, -1:])
    assert probe.hidden is not None
    assert probe.hidden.shape == (*batch["input_ids"].shape, 32)
    torch.testing.assert_close(model.lm_head(probe.hidden), expected)
    assert probe.cut
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("by_name", [False, True])
def test_inside_sees_the_position_before_the_head_runs(by_name):
    head, hidden = torch.nn.Linear(4, 3), torch.randn(2, 5, 4)
    order = []
    head.register_forward_hook(lambda *_: order.append("head"))
    inside = lambda last: (order.append("inside"), last)  # noqa: E731
    with HeadProbe(head, inside) as probe:
        out = head(input=hidden) if by_name else head(hidden)
    assert order == ["inside", "head"]
    assert torch.equal(probe.result[1], hidden[:, -1:])
    assert out.shape == (2, 1, 3)


def test_inside_is_given_what_else_the_head_takes():
    head = torch.nn.Bilinear(4, 4, 3)
    hidden, other = torch.randn(2, 5, 4), torch.randn(2, 1, 4)
    for call in (lambda: head(hidden, other), lambda: head(input1=hidden, input2=other)):
        with HeadProbe(head, lambda last, *args, **kwargs: (last.shape, len(args) + len(kwargs))) as probe:
            call()
        assert probe.result == ((2, 1, 4), 1)


def test_what_stands_in_is_put_in_place_of_the_output_once():
    head, hidden, ran = torch.nn.Linear(4, 3), torch.randn(5, 6, 4), []
    head.register_forward_pre_hook(lambda _, args: ran.append(args[0].shape[1]))
    raw = torch.arange(6.0).reshape(2, 1, 3)
    with HeadProbe(head, lambda _: SimpleNamespace(stands_in=True, raw=raw)) as probe:
        head.register_forward_pre_hook(lambda _, args: ran.append(args[0].shape[1]))
        first, second = head(hidden), head(hidden)
    assert torch.equal(first, raw[[0, 1, 0, 1, 0]])
    assert torch.equal(second, torch.nn.functional.linear(hidden, head.weight, head.bias))
    assert ran == [6, 0, 6, 6]
    assert probe.hidden is None
    assert not head._forward_hooks
    first.zero_()  # as models may
    assert raw.any()


@pytest.mark.parametrize("shape", [(10, 4), (2, 3, 5, 4)])
def test_what_are_no_hidden_states_is_left_alone(shape):
    head = torch.nn.Linear(4, 3)
    with HeadProbe(head) as probe:
        out = head(torch.randn(shape))
    assert out.shape == (*shape[:-1], 3)
    assert probe.hidden is None
    assert (probe.calls, probe.cut) == (1, False)


def test_a_head_in_pieces_is_told_of():
    head = torch.nn.Linear(4, 3)
    with HeadProbe(head) as probe:
        head(torch.randn(2, 5, 4))
        head(torch.randn(2, 5, 4))
    assert probe.hidden is None
    assert (probe.calls, probe.cut) == (2, True)


def test_arithmetic_is_outside_autocast():
    x = torch.randn(2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), outside_autocast(x):
        assert (x @ x).dtype == torch.float32
        assert not (x @ x).requires_grad


# no trace


class Restless(torch.nn.Module):
    """A model that draws from every generator, whatever its mode, and may fail."""

    def __init__(self, fails):
        super().__init__()
        self.model, self.fails = tiny.llama(dropout=0.5), fails
        self.config, self.get_output_embeddings = self.model.config, self.model.get_output_embeddings

    def forward(self, **inputs):
        noise = random.random() + np.random.random() + torch.rand(())  # noqa: NPY002
        output = self.model(**inputs)
        if self.fails:
            raise ArithmeticError
        output.logits = output.logits + 0 * noise
        return output


def traces(model):
    """Everything that a pass could leave behind."""
    modules = list(model.modules())
    python = random.getstate()
    numpy: Any = np.random.get_state()  # noqa: NPY002
    config = {name: value for name, value in model.config.to_dict().items() if "cache" in name}
    return {
        "python": python,
        "numpy": (numpy[0], numpy[1].tolist(), *numpy[2:]),
        "torch": torch.get_rng_state().tolist(),
        "training": [module.training for module in modules],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in modules],
        "compiled": [m._compiled_call_impl for m in modules],
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "cache": config,
        "weights": [float(parameter.detach().double().sum()) for parameter in model.parameters()],
        "buffers": [(name, buffer.double().sum().item()) for name, buffer in model.named_buffers()],
    }


def scored(model, batch, **options):
    scorer = Scorer(model, **options)
    return scorer.examine(scorer.view(batch), uds.UDS(dim=16))


NAMES = [
    "Llama",
    "Qwen2 tied",
    "GPT2",
    "Gemma2",
    "Mixtral",
    "Mamba",
    "Bert",
    "RWKV",
    "ProphetNet",
    "BART",
    "T5",
    "XLNet",
]


@pytest.mark.filterwarnings("ignore:the model soft-caps", "ignore:the head is given something else")
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("name", NAMES)
def test_a_scoring_pass_leaves_no_trace(name, autocast):
    model, batch = architectures.TABLE[name].build(), tiny.batch(4)
    modules = list(model.modules())
    modules[len(modules) // 2].eval()  # kept in evaluation mode by the user
    next(model.parameters()).requires_grad = False
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        before = traces(model)
        scored(model, batch, score_batch_size=3)
        assert traces(model) == before
        broken = {**batch, "input_ids": batch["input_ids"] + 10 * tiny.VOCAB}
        with pytest.raises(IndexError):
            scored(model, broken)
        assert traces(model) == before


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_model_draws_is_given_back(fails):
    model, batch = Restless(fails), tiny.batch(4)
    before = traces(model)
    if fails:
        with pytest.raises(ArithmeticError):
            scored(model, batch)
    else:
        scored(model, batch)
    assert traces(model) == before


def test_scoring_is_the_same_twice_with_dropout():
    model, batch = tiny.llama(dropout=0.5), tiny.batch()
    first, second = scored(model, batch), scored(model, batch)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not first["utility"].requires_grad


def test_batches_are_not_changed():
    model, batch = tiny.llama(), tiny.batch()
    before = {name: tensor.clone() for name, tensor in batch.items()}
    scored(model, batch, score_batch_size=2)
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_training_after_scoring_under_one_autocast_has_all_gradients():
    model, batch = tiny.llama(), tiny.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scored(model, batch)
        model(**batch).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_undisturbed_works_on_modules_without_parameters():
    with undisturbed(torch.nn.Dropout()):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
