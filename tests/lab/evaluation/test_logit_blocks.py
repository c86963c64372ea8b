"""Losses in blocks of logits are the model's own, with the same gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_decoders import BOUND, MODELS, batch_of, far, model_of, trained

from uds_adapters.lab.evaluation import block_loss, logit_blocks
from uds_adapters.lab.evaluation.logit_blocks import LogitBlocks
from uds_adapters.scoring.heads import After


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(logit_blocks, "WHOLE", 0)
    monkeypatch.setattr(block_loss, "BLOCK", 4 * 97 * 3)  # three rows


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", [None, 77])
@pytest.mark.parametrize(("name", "lora"), [*((name, False) for name in MODELS), ("tied", True), ("capped", True)])
def test_loss_and_gradients_are_the_models(name, lora, number):
    model, batch = model_of(name, lora=lora), batch_of()
    options = {} if number is None else {"num_items_in_batch": torch.tensor(number)}
    expected = trained(model, batch, **options)
    blocks = LogitBlocks(model)
    rows = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _module, _args, output: rows.append(output.shape[1])
    )
    with blocks.training(batch):
        got = trained(model, batch, **options)
    hook.remove()
    assert rows[-1] == 0  # the head made no logits
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert far(got[1], expected[1]) < BOUND
    assert trained(model, batch, **options)[0] == expected[0]  # nothing stays behind
    assert "_loss_function" not in vars(blocks._bare)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", MODELS)
def test_losses_of_tokens_are_the_models(name, monkeypatch):
    model, batch = model_of(name).eval(), batch_of()
    got = LogitBlocks(model).losses(batch)
    monkeypatch.setattr(logit_blocks, "WHOLE", 2**30)
    torch.testing.assert_close(got, LogitBlocks(model).losses(batch), rtol=1e-5, atol=1e-6)


def test_a_batch_that_fits_is_the_models_own_to_the_bit():
    model, batch = model_of("tied"), batch_of()
    expected = trained(model, batch)
    with LogitBlocks(model).training(batch):
        got = trained(model, batch)
    assert got[0] == expected[0]
    assert all(torch.equal(got[1][name], expected[1][name]) for name in expected[1])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("spoil", ["loss", "head", "forward"])
def test_what_is_not_known_is_left_to_the_model(spoil):
    model, batch = model_of("tied"), batch_of()
    if spoil == "loss":
        model.loss_function = lambda logits, labels, **_: logits.square().mean() + 0 * labels.sum()
    elif spoil == "head":
        model.lm_head = torch.nn.Sequential(model.lm_head)
    else:
        forward = model.lm_head.forward
        model.lm_head.forward = lambda x: forward(x) + x.mean()
    expected = trained(model, batch)
    with LogitBlocks(model).training(batch):
        got = trained(model, batch)
    assert got[0] == expected[0]


@pytest.mark.usefixtures("small_blocks")
def test_autocast_multiplies_in_its_own_precision():
    model, batch = model_of("untied"), batch_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = trained(model, batch)
        with LogitBlocks(model).training(batch):
            got = trained(model, batch)
    assert got[0] == pytest.approx(expected[0], rel=1e-3)
    assert far(got[1], expected[1]) < 1e-2  # two digits and a half


@settings(max_examples=30, deadline=None)
@given(
    number=st.integers(0, 9),
    vocab=st.integers(1, 12),
    block=st.integers(1, 10),
    scale=st.sampled_from([1.0, 0.3]),
    cap=st.sampled_from([None, 2.0]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_sum_of_losses_does_not_depend_on_the_blocks(number, vocab, block, scale, cap, biased, seed):
    generator = torch.Generator().manual_seed(seed)
    rows, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((number, 3), (vocab, 3), (vocab,)))
    targets = torch.randint(0, vocab, (number,), generator=generator)
    given_bias = bias if biased else None
    after = After(scale, None, cap)
    leaves = [x.requires_grad_() for x in (rows, weight, bias)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_loss, "BLOCK", 4 * vocab * block)
        each = block_loss.row_losses(rows, weight, given_bias, targets, after)
        total = block_loss.summed_loss(rows, weight, given_bias, targets, after)
        got = torch.autograd.grad(2.0 * total, leaves, allow_unused=True)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    logits = torch.nn.functional.linear(wide[0], wide[1], wide[2] if biased else None) * scale
    logits = logits if cap is None else (logits / cap).tanh() * cap
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(each.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total.double(), expected.sum().detach(), rtol=1e-5, atol=1e-6)
    for one, other in zip(got, torch.autograd.grad(2.0 * expected.sum(), wide, allow_unused=True), strict=True):
        if other is None:
            assert one is None
        else:
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
