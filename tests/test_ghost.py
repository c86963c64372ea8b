"""Products of gradients in a linear layer: equal to those of gradients that are made, by either route."""

import numpy as np
import pytest

import uds_core as uds


@pytest.mark.parametrize(("time", "width"), [(9, 2), (3, 40)], ids=["through gradients", "through Gram matrices"])
def test_products_are_those_of_gradients_that_are_made(backend, time, width):
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(4, time, n)) for n in (width, 3)]
    second = [rng.normal(size=(2, time + 2, n)) for n in (width, 3)]
    made = [
        np.array([d.T @ a for a, d in zip(*side, strict=True)]).reshape(len(side[0]), -1) for side in (first, second)
    ]
    first, second = ([backend.array(x, "float32") for x in side] for side in (first, second))
    for got, expected in (
        (uds.layer_products(*first, tuple(second)), made[0] @ made[1].T),
        (uds.layer_products(*first), made[0] @ made[0].T),
    ):
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [2, 40])
def test_a_sample_that_is_not_finite_spoils_no_other(backend, width):
    inputs, gradients = np.ones((3, 4, width)), np.ones((3, 4, 2))
    gradients[1, 2, 0] = np.nan
    got = backend.numpy(uds.layer_products(backend.array(inputs, "float32"), backend.array(gradients, "float32")))
    np.testing.assert_array_equal(np.isnan(got), np.eye(3)[1][:, None] + np.eye(3)[1] > 0)


def test_errors_name_the_argument():
    x = np.ones((2, 3, 4))
    with pytest.raises(ValueError, match="`inputs` and `gradients` must have shapes"):
        uds.layer_products(x, x[:, :2])
    with pytest.raises(ValueError, match="the same layer"):
        uds.layer_products(x, x, (x, x[:, :, :2]))
