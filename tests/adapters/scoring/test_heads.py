"""What a head amounts to: hypotheses, and what refutes them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from uds_adapters.scoring.head_probe import HeadProbe  # noqa: E402
from uds_adapters.scoring.heads import HeadReader, capped  # noqa: E402

VOCAB, WIDTH = 30, 8


def model(constant=None, **config) -> Any:
    """A bare model, as far as a reader asks."""
    module: Any = torch.nn.Module()
    module.config = SimpleNamespace(**config)
    if constant is not None:
        module.register_buffer("final_logits_bias", constant)
    return module


def head(*, bias=True, seed=0, trains=False) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Linear(WIDTH, VOCAB, bias=bias).requires_grad_(trains)


def last(samples=3, dtype=torch.float32):
    return torch.randn(samples, 1, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


@torch.no_grad()
def read(module, after, of=None, x=None):
    """What is read of a module, where the model does `after` to its output."""
    x = last() if x is None else x
    return explained_by(HeadReader(module, model() if of is None else of), module, after, x)


def explained_by(reader, module, after, x):
    with HeadProbe(module, reader.linear) as probe:
        output = module(x)
    return reader.explain(probe.result, after(output))


@torch.no_grad()
def close(explained, module, after, dtype=torch.float32, tolerance=1e-5):
    x = last(6, dtype) * 3
    logits = explained.head(x).compact()  # of the spectrum; the logits themselves come in blocks
    assert logits.shape[:2] == (6, 1)
    made = torch.cat([block for _, block in explained.head(x).blocks()], -1)
    made = made if explained.cap is None else capped(made, explained.cap)
    torch.testing.assert_close(made.float(), after(module(x)).float(), rtol=tolerance, atol=tolerance)


AFTER = {
    "nothing": ({}, lambda x: x),
    "a factor": ({"logit_scale": 0.0625}, lambda x: x * 0.0625),
    "a divisor": ({"logits_scaling": 8.0}, lambda x: x / 8.0),
    "the same name as a factor": ({"logits_scaling": 8.0}, lambda x: x * 8.0),
    "a name that is ignored": ({"logit_scale": 0.0625}, lambda x: x),
    "two names": ({"logit_scale": 2.0, "lm_head_multiplier": 0.3}, lambda x: x * 0.3),
    "a cap": ({"final_logit_softcapping": 2.0}, lambda x: 2 * torch.tanh(x / 2)),
    "a cap that is ignored": ({"final_logit_softcapping": 0.5}, lambda x: x),
    "a factor, then a cap": (
        {"final_logit_softcapping": 2.0, "output_multiplier": 3.0},
        lambda x: 2 * torch.tanh(3 * x / 2),
    ),
    "fewer words than the head has": ({}, lambda x: x[..., : VOCAB - 3]),
    "float64": ({}, lambda x: x.double()),
    "a factor, in place": ({"logit_scale": 0.0625}, lambda x: x.mul_(0.0625)),
    "a flag for a number": ({"logit_scale": True, "logits_scaling": None}, lambda x: x),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", AFTER)
def test_what_a_model_does_to_its_heads_output_is_found(name, bias):
    config, after = AFTER[name]
    module = head(bias=bias)
    explained = read(module, after, model(**config))
    assert explained is not None
    close(explained, module, after)
    assert explained.head.frozen


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_constant_vector_is_found(bias, scale):
    constant = torch.randn(1, VOCAB)
    after = lambda x: x * scale + constant  # noqa: E731
    module = head(bias=bias)
    explained = read(module, after, model(constant, logit_scale=scale))
    close(explained, module, after)
    assert read(module, lambda x: x, model(constant)).head.bias is (module.bias if bias else None) or bias


def test_text_configurations_of_larger_models_are_asked():
    inner = SimpleNamespace(final_logit_softcapping=2.0)
    outer = model(get_text_config=lambda decoder: inner)
    assert read(head(), lambda x: 2 * torch.tanh(x / 2), outer).cap == 2.0


REFUTED = {
    "an unknown factor": lambda x: x * 1.5,
    "an unknown cap": lambda x: 5 * torch.tanh(x / 5),
    "a slight one": lambda x: 100 * torch.tanh(x / 100),
    "an unknown constant": lambda x: x + torch.arange(VOCAB),
    "a small one": lambda x: x + 1e-3 * torch.arange(VOCAB),
    "probabilities": lambda x: x.log_softmax(-1),
    "words shut out": lambda x: x.masked_fill(torch.arange(VOCAB) < 2, float("-inf")),
    "another order": lambda x: x.flip(-1),
    "more words": lambda x: torch.nn.functional.pad(x, (0, 1)),
    "other rows": lambda x: torch.cat([x, x], 1),
    "other samples": lambda x: x.flip(0),
}


@pytest.mark.parametrize("name", REFUTED)
@pytest.mark.parametrize("config", [{}, {"logit_scale": 0.5}, {"final_logit_softcapping": 30.0}], ids=str)
def test_what_nothing_explains_is_not_explained(name, config):
    assert read(head(), REFUTED[name], model(**config)) is None


@given(cap=st.floats(0.1, 100), scale=st.floats(0.01, 100), size=st.floats(1e-3, 3), bfloat=st.booleans())
def test_a_configured_cap_is_never_skipped(cap, scale, size, bfloat):
    module = head()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(size * cap / scale)  # where the cap levels every logit, nothing tells of a scale
    x = last()
    if bfloat:
        module, x = module.bfloat16(), x.bfloat16()
    after = lambda x: torch.tanh(x * scale / cap) * cap  # noqa: E731
    explained = read(module, after, model(final_logit_softcapping=cap, logit_scale=scale), x)
    assert explained is not None
    assert explained.cap == pytest.approx(cap)
    assert explained.head.scale == pytest.approx(scale, rel=1e-2 if bfloat else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_precision_is_verified_as_finely_as_it_is_computed(dtype):
    module = head().to(dtype)
    explained = read(module, lambda x: x.float(), x=last(dtype=dtype))
    close(explained, module, lambda x: x, dtype, 5e-2 if dtype.itemsize == 2 else 1e-5)
    assert read(module, lambda x: x * 1.1, x=last(dtype=dtype)) is None


def test_products_that_are_rounded_to_tf32_are_verified_as_finely():
    class Rounded(Adapted):  # as a GPU would: each of its two products for itself
        def forward(self, x):
            return super().forward(x) * (1 + 2.0**-11 * torch.sign(torch.arange(VOCAB) % 2 - 0.5) * (x.norm() > 2))

    assert read(Rounded(1.0), lambda x: x) is None
    torch.set_float32_matmul_precision("high")
    try:
        assert read(Rounded(1.0), lambda x: x) is not None
        assert read(Rounded(1.0), lambda x: x * 1.001) is None  # what is not made of products is held to float32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_samples_that_are_broken_do_not_stand_in_the_way():
    x = last()
    x[1] = torch.nan
    assert read(head(), lambda x: x, x=x) is not None
    assert read(head(), lambda x: x * 3, x=x) is None
    assert read(head(), lambda x: x, x=x * torch.nan) is not None  # all of them: nothing to tell


# modules that are more than their weight


class Adapted(torch.nn.Module):
    """A weight, and what is trained beside it."""

    def __init__(self, size, *, trains=True, bias=True):
        super().__init__()
        base = head(bias=bias)
        self.weight, self.bias = base.weight, base.bias
        self.delta = torch.nn.Parameter(size * torch.randn(VOCAB, WIDTH), requires_grad=trains)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias) + x @ self.delta.T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-7])
def test_what_is_added_to_a_weight_is_in_it(size, trains, bias):
    module = Adapted(size, trains=trains, bias=bias)
    explained = read(module, lambda x: x)
    close(explained, module, lambda x: x)
    assert explained.head.frozen is not trains


def test_the_identity_is_handed_in_blocks(monkeypatch):
    monkeypatch.setattr("uds_adapters.scoring.heads._IDENTITY_BYTES", 3 * 4 * VOCAB)
    module = Adapted(1.0)
    sizes = []
    forward = module.forward
    module.forward = lambda x: (sizes.append(x.shape[1]), forward(x))[1]
    close(read(module, lambda x: x), module, lambda x: x)
    assert sizes[:6] == [1, 1, 3, 3, 2, 1]  # the position, zero, the identity, and the position again, in `read`


class CastOutput(torch.nn.Sequential):
    """What PEFT puts around a head: its output in float32."""

    def forward(self, x):
        return super().forward(x).to(torch.float32)


class CastInput(torch.nn.Sequential):
    def forward(self, x):
        return super().forward(x.to(self[0].weight.dtype)).float()


class Rounded(torch.nn.Sequential):
    """Not linear: it rounds what goes in, as quantised activations do."""

    def forward(self, x):
        return super().forward((4 * x).round() / 4).float()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [CastOutput, CastInput])
def test_a_head_in_a_cast_is_read(make, bias, frozen, dtype):
    module = make(head(bias=bias).to(dtype).requires_grad_(not frozen))
    given = torch.float32 if make is CastInput else dtype
    explained = read(module, lambda x: x, x=last(dtype=given))
    assert explained is not None
    assert explained.head.weight.dtype == dtype  # the layer's own, without a pass for each column
    close(explained, module, lambda x: x, given, tolerance=4 * torch.finfo(dtype).eps)


def test_a_cast_around_a_head_that_is_not_linear_hides_nothing():
    assert read(Rounded(head().bfloat16()), lambda x: x, x=last(dtype=torch.bfloat16)) is None
    assert read(torch.nn.Sequential(head(), Rounded(torch.nn.Identity())), lambda x: x) is None


class Bent(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1e-3 * super().forward(x).square()


def test_what_is_not_linear_is_not_read():
    module = Bent(WIDTH, VOCAB)
    reader, sizes = HeadReader(module, model()), []
    forward = module.forward
    module.forward = lambda x: (sizes.append(x.shape[1]), forward(x))[1]
    with torch.no_grad():
        assert reader.linear(last()).weight is None
        assert sizes == [1, 1, WIDTH]
        assert reader.linear(last()).weight is None
    assert sizes[3:] == [1]  # the identity is not handed to it again and again


def test_heads_that_take_more_than_hidden_states():
    class Tempered(torch.nn.Linear):
        def forward(self, x, temperature=1.0):
            return super().forward(x) / temperature

    module = Tempered(WIDTH, VOCAB)
    reader = HeadReader(module, model())
    with torch.no_grad():
        assert reader.linear(last(), 1.0).weight is not None
        assert reader.linear(last(), temperature=2.0).weight is None


def test_a_weight_of_another_kind_of_layer_is_not_taken():
    class Transposed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(WIDTH, VOCAB))

        def forward(self, x):
            return x @ self.weight

    module = Transposed()
    close(read(module, lambda x: x), module, lambda x: x)


def test_quantised_layers_of_torchao_are_read():
    torchao = pytest.importorskip("torchao.quantization", reason="needs torchao")
    holder = torch.nn.Sequential(head(bias=False))
    torchao.quantize_(holder, torchao.Int8WeightOnlyConfig())
    close(read(holder[0], lambda x: x), holder[0], lambda x: x)


def test_quantised_layers_of_bitsandbytes_are_read():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    module = bitsandbytes.nn.Linear4bit(WIDTH, VOCAB, bias=False).to("cpu")
    close(read(module, lambda x: x), module, lambda x: x)


# PyTorch's own linear layer, which need not run


class Multiplied(TorchDispatchMode):
    """Entries of the matrix products that are made while it is entered."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.entries += result.numel()
        return result


def made(module):
    """Entries of products in looking through a head at one position of 6 samples."""
    reader, x = HeadReader(module, model()), torch.randn(6, 1, WIDTH)
    with torch.no_grad(), Multiplied() as products:
        assert explained_by(reader, module, lambda x: x, x) is not None
    return products.entries


def test_a_known_head_does_not_run():
    class Own(torch.nn.Linear):
        pass

    assert made(torch.nn.Linear(WIDTH, 6400)) == 4 * 64  # of some words, for their size
    assert made(Own(WIDTH, 6400)) == (4 + 4 + 6) * 6400


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 2, 4, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_stands_in_is_as_large_as_what_it_stands_for(samples, dtype):
    torch.manual_seed(0)
    module, x = torch.nn.Linear(64, 1000).to(dtype), torch.randn(samples, 1, 64).to(dtype)
    expected = module(x)
    with HeadProbe(module, HeadReader(module, model()).linear) as probe:
        output = module(x)
    assert (output.shape, output.dtype) == (expected.shape, dtype)
    assert 0.5 < output.double().abs().max() / expected.double().abs().max() < 2
    assert torch.equal(output[:4], probe.result.raw)
    assert output[: min(samples, 4)].float().unique(dim=0).shape[0] == min(samples, 4)


def test_what_stands_in_has_the_precision_of_autocast():
    module = head()
    with torch.autocast("cpu", dtype=torch.bfloat16), HeadProbe(module, HeadReader(module, model()).linear) as probe:
        output = module(last())
    assert probe.result.stands_in
    assert output.dtype == probe.result.raw.dtype == torch.bfloat16


@pytest.mark.parametrize("register", ["its own", "everybody's"])
def test_hooks_that_change_the_output_are_seen(register):
    module, double = head(), lambda module, _, output: output * 2 if module is target else None
    target = module
    everybody = torch.nn.modules.module.register_module_forward_hook
    hook = module.register_forward_hook(double) if register == "its own" else everybody(double)
    try:
        assert read(module, lambda x: x) is None
        assert read(module, lambda x: x, model(logit_scale=2.0)).head.scale == 2.0
    finally:
        hook.remove()


# what is kept


@torch.no_grad()
def again(reader, module, x=None):
    x = last() if x is None else x
    reader.refresh()
    explained = explained_by(reader, module, lambda x: x, x)
    assert explained is not None
    close(explained, module, lambda x: x)
    return explained.head


@pytest.mark.parametrize("make", [head, lambda: Adapted(1.0, trains=False)], ids=["plain", "adapted"])
def test_frozen_heads_are_kept_until_something_changes(make):
    module = make()
    reader = HeadReader(module, model())
    first = again(reader, module)
    assert again(reader, module, last(5)) is first
    with torch.no_grad():
        module.weight.add_(1)
    second = again(reader, module)
    module.weight.data.mul_(2)  # which no version counter sees
    third = again(reader, module)
    module.weight = torch.nn.Parameter(module.weight.detach() / 3, requires_grad=False)
    fourth = again(reader, module)
    assert len({id(kept) for kept in (first, second, third, fourth)}) == 4
    assert again(reader, module) is fourth


def test_heads_that_train_are_read_anew_in_each_call_and_kept_within_it():
    module = head(trains=True)
    reader = HeadReader(module, model())
    first = again(reader, module)
    with torch.no_grad():
        kept = explained_by(reader, module, lambda x: x, last())
    assert kept is not None
    assert kept.head is first
    assert again(reader, module) is not first
    assert not first.frozen
