"""Products of samples' gradients in a linear layer's weight, from what went into the layer and what came back."""

from ._array import Array, array_namespace

__all__ = ["layer_products"]


def layer_products(inputs: Array, gradients: Array, others: tuple[Array, Array] | None = None, /) -> Array:
    r"""Inner products of each sample's gradient in a layer's weight with each of the others, (batch, others).

    .. math:: \langle G_i, G_k \rangle = \langle A_i A_k^T, D_i D_k^T \rangle, \qquad G_i = D_i^T A_i

    Parameters
    ----------
    inputs
        A (batch, time, in): what went into the layer. Rows outside a sample may hold anything finite.
    gradients
        D (batch, time, out): gradients of the samples' losses in what came out; zero outside a sample.
    others
        A and D of the other samples, of any length. Default: the same ones.

    Raises
    ------
    ValueError
        Where shapes do not fit.

    Notes
    -----
    Taken through the gradients G or, where those are larger than a pair of samples is long, through the Gram matrices
    (the *ghost* product), one of the others at a time: O(batch time in out) or O(batch others time^2 (in + out)).
    Source: Wang et al., GREATS, NeurIPS 2024.
    """
    other_inputs, other_gradients = (inputs, gradients) if others is None else others
    xp = array_namespace(inputs, gradients, other_inputs, other_gradients)
    sizes, theirs = _sizes(inputs, gradients), _sizes(other_inputs, other_gradients)
    if sizes != theirs:
        msg = f"both sides must be of the same layer (in, out), got {sizes} and {theirs}"
        raise ValueError(msg)
    if sizes[0] * sizes[1] <= inputs.shape[1] * other_inputs.shape[1]:
        mine = _flat(inputs, gradients)
        across = mine if others is None else _flat(other_inputs, other_gradients)
        return mine @ xp.matrix_transpose(across)
    columns: list[Array] = []
    for k in range(other_inputs.shape[0]):
        one, back = (xp.matrix_transpose(x[k, ...]) for x in (other_inputs, other_gradients))
        columns.append(xp.sum((inputs @ one) * (gradients @ back), axis=(1, 2)))
    return xp.stack(columns, axis=1)


def _flat(inputs: Array, gradients: Array) -> Array:
    """The gradients in the weight themselves, each in one row."""
    xp = array_namespace(inputs)
    made = xp.matrix_transpose(gradients) @ inputs
    return xp.reshape(made, (made.shape[0], made.shape[1] * made.shape[2]))


def _sizes(inputs: Array, gradients: Array) -> tuple[int, int]:
    if inputs.ndim != 3 or gradients.ndim != 3 or tuple(inputs.shape[:2]) != tuple(gradients.shape[:2]):
        msg = (
            "`inputs` and `gradients` must have shapes (batch, time, in) and (batch, time, out), got "
            f"{tuple(inputs.shape)} and {tuple(gradients.shape)}"
        )
        raise ValueError(msg)
    return inputs.shape[2], gradients.shape[2]
