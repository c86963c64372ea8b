"""Gradients in the head's weight, never made: equal to those that are made, by hand and by autograd."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import uds_core as uds

SIZES = [(1, 1, 1, 2), (3, 4, 6, 30), (2, 6, 3, 17)]  # shorter and longer than the width
SCALE = 0.7


def problem(seed, size):
    """Hidden states, weight, bias, and labels of which some rows, and the last sample, may have none."""
    batch, time, width, vocab = size
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(batch, time, width))
    weight, bias = 2 * rng.normal(size=(vocab, width)), rng.normal(size=vocab)
    labels = rng.integers(-1, vocab, size=(batch, time))
    return hidden, weight, bias, np.where(labels < 0, -100, labels)


def of(backend, hidden, weight, bias, labels, *, dense=False, dtype="float32", **options):
    states, labels = backend.array(hidden, dtype), backend.array(labels)
    if dense:
        logits = backend.array(SCALE * (hidden @ weight.T + bias), dtype)
        return uds.HeadGradients(logits, labels, hidden=states, scale=SCALE, **options)
    head = uds.Head(backend.array(weight, dtype), backend.array(bias, dtype), SCALE)
    return uds.HeadGradients(head(states), labels, **options)


def few(backend, size, block):
    """The size of a problem and of its blocks: JAX compiles anew for each."""
    return (SIZES[1], 2**20) if backend.name == "jax" else (size, block)


def made(hidden, weight, bias, labels):
    return reference.head_gradients(hidden, weight, bias, SCALE, labels)


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from(SIZES),
    block=st.sampled_from([64, 3000, 2**20]),
    dense=st.booleans(),
)
def test_norms_products_and_sketches_are_those_of_gradients_that_are_made(backend, seed, size, block, dense):
    size, block = few(backend, size, block)
    given_, others = problem(seed, size), problem(seed + 1, (2, 5, *size[2:]))
    others = others[0], *given_[1:3], others[3]
    mine, theirs = (of(backend, *parts, dense=dense) for parts in (given_, others))
    expected, across = made(*given_), made(*others)
    norms = np.linalg.norm(expected, axis=(1, 2))
    unit = max(norms.max(), 1e-3) * max(np.linalg.norm(across, axis=(1, 2)).max(), norms.max(), 1e-3)
    np.testing.assert_allclose(backend.numpy(mine.norms(block_bytes=block)), norms, rtol=1e-5, atol=1e-6)
    got = backend.numpy(mine.products(mine, theirs, block_bytes=block))
    wanted = np.einsum("ivh,kvh->ik", expected, np.concatenate([expected, across]))
    np.testing.assert_allclose(got / unit, wanted / unit, atol=1e-5)
    np.testing.assert_allclose(
        backend.numpy(mine.products(block_bytes=block)), got[:, : len(expected)], atol=1e-5 * unit
    )
    sketch = backend.numpy(mine.sketch(dim=8, seed=3, block_bytes=block))
    np.testing.assert_allclose(sketch, reference.gradient_sketch(expected, dim=8, seed=3), rtol=1e-4, atol=1e-5 * unit)


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from(SIZES), block=st.sampled_from([64, 3000, 2**20]))
def test_logit_norms_are_those_of_softmax_less_one_hot_and_bound_the_heads(backend, seed, size, block):
    size, block = few(backend, size, block)
    hidden, weight, bias, labels = parts = problem(seed, size)
    got = backend.numpy(of(backend, *parts).logit_norms(block_bytes=block))
    same = uds.HeadGradients(backend.array(SCALE * (hidden @ weight.T + bias), "float32"), backend.array(labels))
    expected = reference.logit_gradient_norm(SCALE * (hidden @ weight.T + bias), labels)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backend.numpy(same.logit_norms()), expected, rtol=1e-5, atol=1e-6)
    size_of = np.array([np.linalg.norm(h, 2) for h in hidden])
    assert (backend.numpy(of(backend, *parts).norms()) <= SCALE * size_of * expected * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_gradient_in_the_hidden_states(backend, size):
    hidden, weight, bias, labels = parts = problem(0, size)
    got = backend.numpy(of(backend, *parts).in_hidden(block_bytes=500))
    number = np.maximum((labels != -100).sum(axis=1), 1)
    p = np.exp(SCALE * (hidden @ weight.T + bias))
    p /= p.sum(axis=2, keepdims=True)
    residuals = np.where((labels == -100)[:, :, None], 0, p - (np.arange(size[3]) == labels[:, :, None]))
    np.testing.assert_allclose(got, SCALE * residuals @ weight / number[:, None, None], rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="need the head"):
        of(backend, *parts, dense=True).in_hidden()


def test_sketches_keep_products_on_average():
    """Over seeds: unbiased, and as near as the docstring says."""
    expected = made(*problem(0, (3, 4, 6, 30)))
    products = np.einsum("ivh,kvh->ik", expected, expected)
    from conftest import Backend

    gradients = of(Backend("numpy", np), *problem(0, (3, 4, 6, 30)), dtype="float64")
    sketches = np.array([gradients.sketch(dim=32, seed=seed) for seed in range(400)])
    got = sketches @ np.moveaxis(sketches, 1, 2)
    unit = np.sqrt(np.outer(np.diag(products), np.diag(products)))
    np.testing.assert_allclose(got.mean(axis=0) / unit, products / unit, atol=4 * 3 / np.sqrt(32 * 400))
    spread = np.diagonal(got / unit, axis1=1, axis2=2).var(axis=0) * 32
    assert (spread > 1.5).all()
    assert (spread < 11).all()


@pytest.mark.parametrize("method", ["norms", "logit_norms", "products", "sketch", "in_hidden"])
def test_nothing_and_nan_stay_where_they_are(backend, method):
    hidden, weight, bias, labels = problem(0, (4, 5, 3, 17))
    labels[2] = -100
    call = getattr(of(backend, hidden, weight, bias, labels), method)
    options = {"dim": 4} if method == "sketch" else {}
    sound = backend.numpy(call(**options))
    assert (sound[2] == 0).all()
    broken = hidden.copy()
    broken[1, np.flatnonzero(labels[1] != -100)[0], 0] = np.inf
    got = backend.numpy(getattr(of(backend, broken, weight, bias, labels), method)(**options))
    assert np.isnan(got[1]).any()
    if method == "products":
        assert np.isnan(got[:, 1]).all()
        got, sound = np.delete(got, 1, axis=1), np.delete(sound, 1, axis=1)
    np.testing.assert_allclose(np.delete(got, 1, axis=0), np.delete(sound, 1, axis=0), rtol=1e-5, atol=1e-6)
    labels[0, 0] = 17
    got = backend.numpy(getattr(of(backend, hidden, weight, bias, labels), method)(**options))
    assert np.isnan(got[0]).any()
    assert np.isfinite(np.delete(got, 0, axis=0) if method != "products" else got[1:, 1:]).all()


def test_rows_that_do_not_count_may_hold_anything(backend):
    hidden, weight, bias, labels = problem(1, (2, 5, 3, 17))
    mask = np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1]]) > 0
    expected = made(hidden, weight, bias, np.where(mask, labels, -100))
    hidden[~mask] = np.nan
    got = of(backend, hidden, weight, bias, labels, mask=backend.array(mask)).norms()
    np.testing.assert_allclose(backend.numpy(got), np.linalg.norm(expected, axis=(1, 2)), rtol=1e-5)


def test_a_confident_row_has_a_small_gradient_not_a_rounding_error(backend):
    """1 - p is computed from the other tokens: in float32, 1 - 0.9999999 has one digit."""
    logits = np.zeros((1, 1, 4))
    logits[0, 0, 2] = 20.0
    gradients = uds.HeadGradients(
        backend.array(logits, "float32"), backend.array([[2]]), hidden=backend.array([[[3.0, 4.0]]], "float32")
    )
    rest = np.exp(-20) / (1 + 3 * np.exp(-20))
    expected = np.sqrt((3 * rest) ** 2 + 3 * rest**2)
    assert float(backend.numpy(gradients.logit_norms())[0]) == pytest.approx(expected, rel=1e-5)
    assert float(backend.numpy(gradients.norms())[0]) == pytest.approx(5 * expected, rel=1e-5)


def test_half_floats_are_widened():
    torch = pytest.importorskip("torch")
    hidden, weight, bias, labels = (torch.as_tensor(x) for x in problem(0, (3, 4, 6, 30)))
    for half in (torch.bfloat16, torch.float16):
        parts = [x.to(half) for x in (hidden, weight, bias)]
        got, wide = (
            uds.HeadGradients(uds.Head(w, b, SCALE)(h), labels) for h, w, b in (parts, [x.float() for x in parts])
        )
        assert got.norms().dtype == torch.float32
        torch.testing.assert_close(got.norms(), wide.norms())


def test_compiles_under_jax():
    jax = pytest.importorskip("jax")
    hidden, weight, bias, labels = (jax.numpy.asarray(x) for x in problem(0, (3, 4, 6, 30)))
    head = uds.Head(weight, bias, SCALE)

    def all_of(hidden, labels):
        gradients = uds.HeadGradients(head(hidden), labels)
        return gradients.norms(), gradients.logit_norms(), gradients.products(), gradients.sketch(dim=4)

    for eager, compiled in zip(all_of(hidden, labels), jax.jit(all_of)(hidden, labels), strict=True):
        np.testing.assert_allclose(eager, compiled, rtol=1e-4, atol=1e-5)


def test_the_vocabulary_is_never_held():
    """Peak memory stays with the blocks: a full set of logits would need 40 times as much."""
    import tracemalloc

    batch, time, width, vocab = 4, 50, 8, 20_000
    rng = np.random.default_rng(0)
    head = uds.Head(rng.normal(size=(vocab, width)).astype(np.float32))
    hidden = rng.normal(size=(batch, time, width)).astype(np.float32)
    gradients = uds.HeadGradients(head(hidden), rng.integers(0, vocab, size=(batch, time)))
    block = 400_000
    for call in (gradients.norms, gradients.logit_norms, gradients.products):
        tracemalloc.start()
        call(block_bytes=block)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.5 * block, call
    assert 4 * batch * time * vocab == 40 * block


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: uds.HeadGradients(np.zeros((1, 3, 4)), np.zeros((1, 2), int)), r"`labels` must have shape"),
        (
            lambda: uds.HeadGradients(np.zeros((1, 3, 4)), np.zeros((1, 3), int), hidden=np.zeros((1, 2, 4))),
            r"`hidden` must have shape",
        ),
        (
            lambda: uds.HeadGradients(
                uds.Head(np.zeros((4, 2)))(np.zeros((1, 3, 2))), np.zeros((1, 3), int), hidden=np.zeros((1, 3, 2))
            ),
            "knows its own",
        ),
        (lambda: uds.HeadGradients(np.zeros((1, 3, 4)), np.zeros((1, 3), int)).norms(), "needs the hidden states"),
    ],
)
def test_errors_name_the_argument(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_products_want_the_same_head():
    first, second = (
        uds.HeadGradients(np.zeros((1, 3, vocab)), np.zeros((1, 3), int), hidden=np.zeros((1, 3, 2)))
        for vocab in (4, 5)
    )
    with pytest.raises(ValueError, match="the same head"):
        first.products(second)


# --- the truth: autograd through real models -------------------------------------------------------------------------


def models():
    transformers = pytest.importorskip("transformers")
    import torch
    from tiny import VOCAB, llama

    torch.manual_seed(0)
    small = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pad_token_id": 0,
    }
    yield "llama", llama()
    yield "llama tied", llama(tied=True)
    cohere = transformers.CohereConfig(**small, num_key_value_heads=2, logit_scale=0.0625)
    yield "cohere", transformers.CohereForCausalLM(cohere)
    phi = transformers.PhiForCausalLM(transformers.PhiConfig(**small))
    torch.nn.init.normal_(phi.lm_head.bias)
    yield "bias", phi


@pytest.mark.parametrize("name", ["llama", "llama tied", "cohere", "bias"])
def test_norms_and_products_of_real_models_are_autograds(name):
    """A copy of the head, cut off from the embeddings and the rest: its gradient, one sample after the other."""
    torch = pytest.importorskip("torch")
    from tiny import batch

    from uds_adapters.scoring.scorer import Scorer

    model = dict(models())[name]
    data = batch(5)
    gradients = []
    for i in range(5):
        one = {key: value[i : i + 1] for key, value in data.items()}
        hidden = model.base_model(one["input_ids"], attention_mask=one["attention_mask"]).last_hidden_state.detach()
        weight = model.lm_head.weight.detach().clone().requires_grad_()
        scale = getattr(model, "logit_scale", 1.0)
        logits = scale * torch.nn.functional.linear(hidden, weight, model.lm_head.bias)
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], one["labels"][0, 1:])
        gradients.append(torch.autograd.grad(loss, weight)[0].flatten())
    expected = torch.stack(gradients)
    candidates = Scorer(model)(data)
    got = uds.HeadGradients(candidates.logits, candidates.labels, mask=candidates.mask)
    torch.testing.assert_close(got.norms(), expected.norm(dim=1), rtol=1e-5, atol=0)
    unit = expected.norm(dim=1).outer(expected.norm(dim=1))
    assert ((got.products() - expected @ expected.T).abs() / unit).max() < 1e-5
