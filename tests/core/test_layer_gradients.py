"""Products of gradients in linear layers: equal to those of gradients that are made, by either route."""

import numpy as np
import pytest

import uds_core as uds

WIDTHS = [(2, 3), (40, 3)]  # of the two layers: through the gradients, and through the Gram matrices


def layers_of(rng, batch, time):
    return [tuple(rng.normal(size=(batch, time, n)) for n in width) for width in WIDTHS]


def made(layers):
    """The gradients in all layers, each sample's in one row."""
    return np.concatenate([np.einsum("bto,bti->boi", d, a).reshape(len(a), -1) for a, d in layers], axis=1)


def test_products_are_those_of_gradients_that_are_made(backend):
    rng = np.random.default_rng(0)
    first, second = layers_of(rng, 4, 7), layers_of(rng, 2, 9)
    mine, others = ([tuple(backend.array(x, "float32") for x in pair) for pair in side] for side in (first, second))
    for got, expected in (
        (uds.layer_products(mine, others), made(first) @ made(second).T),
        (uds.layer_products(mine), made(first) @ made(first).T),
    ):
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("width", [2, 40])
def test_a_sample_that_is_not_finite_spoils_no_other(backend, width):
    inputs, back = np.ones((3, 4, width)), np.ones((3, 4, 2))
    back[1, 2, 0] = np.nan
    got = backend.numpy(uds.layer_products([(backend.array(inputs, "float32"), backend.array(back, "float32"))]))
    np.testing.assert_array_equal(np.isnan(got), np.eye(3)[1][:, None] + np.eye(3)[1] > 0)


def test_half_floats_are_widened():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    pair = (torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 5).bfloat16())
    got = uds.layer_products([pair])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, uds.layer_products([(pair[0].float(), pair[1].float())]))


def test_errors_name_what_came():
    x = np.ones((2, 3, 4))
    for layers, others, words in (
        ([(x, x[:, :2])], None, "a layer must be a pair of shapes"),
        ([(x, x)], [(x, x[:, :, :2])], "the same layer"),
        ([(x, x)], [(x, x), (x, x)], "the same layers, at least one, got 1 and 2"),
        ([], None, "at least one, got 0 and 0"),
    ):
        with pytest.raises(ValueError, match=words):
            uds.layer_products(layers, others)
