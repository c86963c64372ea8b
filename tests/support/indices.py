"""Indices of chosen samples, as lists."""


def listed(backend, indices):
    """As a list, once they are known to be int32."""
    assert str(indices.dtype).rsplit(".", maxsplit=1)[-1] == "int32"
    return backend.numpy(indices).tolist()
