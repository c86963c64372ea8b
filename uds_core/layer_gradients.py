"""Inner products of samples' gradients in linear layers, from layer inputs and output gradients."""

from collections.abc import Sequence
from typing import Any

from ._array import Array, accumulation_dtype, array_namespace, widen


def layer_products(
    layers: Sequence[tuple[Array, Array]], others: Sequence[tuple[Array, Array]] | None = None, /
) -> Array:
    r"""Return inner products (batch, others) of samples' gradients in the layers' weights with those of others.

    .. math::
        \langle G_i, G_k \rangle = \sum_l \langle A_{il} A_{kl}^T, D_{il} D_{kl}^T \rangle, \qquad
        G_{il} = D_{il}^T A_{il}

    Parameters
    ----------
    layers
        For each layer A (batch, time, in), its input, and D (batch, time, out), the gradients of the samples'
        losses in its output: zero in rows outside a sample, where A may be anything finite.
    others
        A and D of other samples, of any length, in the same layers. Default: the same samples.

    Raises
    ------
    ValueError
        Where shapes do not fit, or there is no layer.

    Notes
    -----
    Taken through the gradients G or, where those are larger than a pair of samples is long, through the Gram matrices
    (the *ghost* product), one of the others at a time: O(batch time in out) or O(batch others time^2 (in + out)) for a
    layer. Half floats are widened. Source: Wang et al., GREATS, NeurIPS 2024.
    """
    others = layers if others is None else others
    if not layers or len(layers) != len(others):
        msg = f"both sides must be of the same layers, at least one, got {len(layers)} and {len(others)}"
        raise ValueError(msg)
    total: Any = 0.0
    for mine, theirs in zip(layers, others, strict=True):
        here, there = _sizes(*mine), _sizes(*theirs)
        if here != there:
            msg = f"both sides must be of the same layer (in, out), got {here} and {there}"
            raise ValueError(msg)
        products = _products(tuple(map(widen, mine)), tuple(map(widen, theirs)))
        xp = array_namespace(products)
        total = total + xp.astype(products, accumulation_dtype(products), copy=False)
    xp = array_namespace(total)
    return xp.astype(total, xp.result_type(*(widen(x) for x in layers[0])), copy=False)


def _products(mine: tuple[Array, Array], theirs: tuple[Array, Array]) -> Array:
    (inputs, back), (their_inputs, their_back) = mine, theirs
    xp = array_namespace(inputs, back, their_inputs, their_back)
    if not their_inputs.shape[0] or inputs.shape[2] * back.shape[2] <= inputs.shape[1] * their_inputs.shape[1]:
        return _flat(inputs, back) @ xp.matrix_transpose(_flat(their_inputs, their_back))
    columns: list[Array] = []  # at least one: without others, the first way is taken
    for k in range(their_inputs.shape[0]):
        one, other = (xp.matrix_transpose(x[k, ...]) for x in theirs)
        columns.append(xp.sum((inputs @ one) * (back @ other), axis=(1, 2)))
    return xp.stack(columns, axis=1)


def _flat(inputs: Array, back: Array) -> Array:
    """Return the gradients in the weight themselves, each in one row."""
    xp = array_namespace(inputs)
    made = xp.matrix_transpose(back) @ inputs
    return xp.reshape(made, (made.shape[0], made.shape[1] * made.shape[2]))


def _sizes(inputs: Array, back: Array) -> tuple[int, int]:
    if inputs.ndim != 3 or back.ndim != 3 or tuple(inputs.shape[:2]) != tuple(back.shape[:2]):
        msg = (
            "a layer must be a pair of shapes (batch, time, in) and (batch, time, out), got "
            f"{tuple(inputs.shape)} and {tuple(back.shape)}"
        )
        raise ValueError(msg)
    return inputs.shape[2], back.shape[2]
